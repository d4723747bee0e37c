"""What of a contract's SQL is said otherwise on Spark, and what is refused.

That the two mean the same is shown on a real Spark in `loan_platform_tests/engine/test_spark.py`.
"""

import pytest

from loan_platform.contract.spark import NotPortable, to_spark


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("log(x)", "LOG10(`x`)"),
        ("log2(x)", "LOG2(`x`)"),
        ("CAST(x AS bigint)", "CAST(RINT(`x`) AS BIGINT)"),
        ("CAST(x > 1 AS integer)", "CAST(`x` > 1 AS INT)"),
        ("n / nullif(m, 0)", "(CAST(`n` AS DOUBLE) / CAST(NULLIF(`m`, 0) AS DOUBLE))"),
        ("regexp_matches(t, '^a.$')", r"`t` RLIKE '^a[^\\n]\\z'"),
        ("regexp_extract(t, '(a)')", "REGEXP_EXTRACT(`t`, '(a)', 0)"),
        ("date_diff('day', d, e)", "DATEDIFF(CAST(`e` AS DATE), CAST(`d` AS DATE))"),
        ("'it''s \\'", r"'it\'s \\'"),
    ],
)
def test_words_that_mean_something_else_are_adapted(sql: str, said: str):
    assert to_spark(f"SELECT {sql}") == f"SELECT {said}"


@pytest.mark.parametrize(
    ("sql", "instead"),
    [
        ("round(x, 2)", "round(x * 100) / 100"),
        ("trim(t)", "trim(x, ' ')"),
        ("n % m", "nullif(..., 0)"),
        ("date_diff('month', d, e)", "date_diff('day', a, b)"),
        ("date_trunc('month', d)", "docs/contract.md"),
        ("CAST(x * 2 AS varchar)", "cast to DOUBLE, BIGINT"),
        ("CAST(x AS decimal(9, 2))", "cast to DOUBLE, BIGINT"),
        (r"regexp_matches(t, '(?i)a\w')", "plain pattern"),
        ("regexp_matches(t, u)", "plain pattern"),
        ("regexp_replace(t, 'a', 'b')", "'g'"),
        ("substring(t, -2)", "position from 1 on"),
        (r"t LIKE 'a\_%'", "without backslashes"),
        ("strftime(d, '%j')", "%Y, %m and %d"),
        ("concat(t, u)", "docs/contract.md"),
        ("n // m", "docs/contract.md"),
        ("dayofweek(d)", "docs/contract.md"),
        ("trunc(x)", "docs/contract.md"),
        ("median(x)", "docs/contract.md"),
        ("bit_count(n)", "docs/contract.md"),
    ],
)
def test_what_only_parses_in_both_is_refused(sql: str, instead: str):
    """Spark takes most of these too, and answers something else."""
    with pytest.raises(NotPortable) as refused:
        to_spark(f"SELECT {sql}")
    assert instead in str(refused.value)
