"""Versions of a portfolio's model, and which of them decides.

Here: keeping bundles in MLflow, the aliases challenger and champion, and the judgement between
them. Not here: training (`training`), or the assets that call this (`components`).
"""
