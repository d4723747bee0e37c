"""Month keys and windows, against Python's own calendar."""

import calendar
import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loan_platform.contract.calendar import keys, partition_key, window

FIRST = dt.datetime(1900, 1, 2)  # noqa: DTZ001 - the strategy adds the zone
LAST = dt.datetime(2999, 12, 30)  # noqa: DTZ001
MOMENTS = st.datetimes(FIRST, LAST, timezones=st.timezones())


@given(moment=MOMENTS)
def test_a_moment_lies_in_the_window_of_its_key(moment: dt.datetime):
    start, end = window(partition_key(moment))
    assert start <= moment < end
    assert (end - start).days == calendar.monthrange(start.year, start.month)[1]


@given(first=st.dates(dt.date(1900, 1, 1), dt.date(2900, 1, 1)), count=st.integers(1, 1200))
def test_keys_are_consecutive_months(first: dt.date, count: int):
    found = keys(first, count)
    assert len(found) == count
    assert found[0] == partition_key(first)
    windows = [window(key) for key in found]
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(windows))


@pytest.mark.parametrize("key", ["2024", "2024-13", "24-01", "2024-01-01", ""])
def test_what_is_not_a_month_is_an_error(key: str):
    with pytest.raises(ValueError, match=r"time data|unconverted"):
        window(key)


def test_a_moment_late_in_new_york_lies_in_the_next_utc_month():
    moment = dt.datetime(2024, 1, 31, 22, tzinfo=dt.timezone(dt.timedelta(hours=-5)))
    assert partition_key(moment) == "2024-02"
