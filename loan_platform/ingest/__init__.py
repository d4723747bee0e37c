"""From a lender's file, and the service's log, to admitted and cleaned rows of a month.

Here: finding and staging the source, admission and quarantine, cleaning, the stand-in book.
Not here: the rules themselves (`contract`), or statistics over the rows (`drift`).
"""
