"""What to tell whom: the messages, who has been told, and the sending.

Here: the wording of an alert, the ledger of what a receiver was told, delivery through Apprise.
Not here: finding failures, which is Dagster's history and lies in `components.alerting`.
"""
