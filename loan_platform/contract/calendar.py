"""The months of a portfolio: keys, windows, and what is known by when. All times are UTC.

Here: arithmetic on partition keys. Not here: Dagster's partitions, made from this in `components`.
"""

from __future__ import annotations

import datetime as dt

KEY_FORMAT = "%Y-%m"


def partition_key(moment: dt.datetime | dt.date) -> str:
    """Key of the month a moment lies in, `YYYY-MM`. A datetime must carry a zone."""
    if isinstance(moment, dt.datetime):
        moment = moment.astimezone(dt.UTC)
    return moment.strftime(KEY_FORMAT)


def window(key: str) -> tuple[dt.datetime, dt.datetime]:
    """[start, end) of a month as UTC datetimes.

    Raises:
        ValueError: `key` is not `YYYY-MM`.
    """
    start = dt.datetime.strptime(key, KEY_FORMAT).replace(tzinfo=dt.UTC)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return start, end


def keys(first: dt.date, count: int) -> list[str]:
    """`count` consecutive month keys from the month of `first`."""
    base = first.year * 12 + first.month - 1
    return [f"{(base + i) // 12:04d}-{(base + i) % 12 + 1:02d}" for i in range(count)]
