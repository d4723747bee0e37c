"""Runs the contract's SQL, and knows where files lie.

Here: DuckDB in memory over Parquet, atomic writes, the folder of a portfolio's state.
Not here: what the SQL says (`contract.sql`), or what a layer means (`ingest`, `drift`, ...).
"""
