"""The BentoML service of a portfolio: HTTP in front of the champion, and the Bento it ships in.

Here: the app, natural batching, following the champion, building.
Not here: what a request may be (`loan_platform.contract.request`), the log
(`loan_platform.decisions`), the model (`loan_platform.model`). Nothing imports this package.
"""
