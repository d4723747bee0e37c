"""Says whether a month of applications still looks like what the champion was trained on.

Here: bins and counts (`counts`), the tests on them (`statistics`), the verdict (`report`).
Not here: what happens after the verdict (`components`), or how good the model still is.
"""
