"""Proposes a contract for a book that has none yet.

Here: looking at a book, guessing, and the YAML a careful colleague would write from it.
Not here: a book's figures (`ingest.profile`) and leaks (`ingest.leaks`), or who asks (`local.init`,
`components.scaffolding`).
"""
