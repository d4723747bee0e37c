"""The figures of a profile, against scikit-learn, scipy and numpy; how text is read; what is kept
from people."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from loan_platform.cli import app
from loan_platform.contract import Contract
from loan_platform.contract.portfolio import Source
from loan_platform.engine import duck
from loan_platform.ingest.profile import (
    PROBABILITIES,
    ColumnProfile,
    Profile,
    ProfileError,
    profile_book,
    profile_relation,
    profile_source,
)
from loan_platform.ingest.profile_page import write_page


def profiled(columns: Mapping[str, Sequence[str | None]], **asked: object) -> Profile:
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    with duck.connect() as connection:
        connection.register("given", table)
        return profile_relation(connection, "given", list(columns), **asked)  # type: ignore[arg-type]


def one(values: list[str | None]) -> ColumnProfile:
    return profiled({"c": values}).column("c")


@pytest.fixture(scope="module")
def book() -> pd.DataFrame:
    """Loans with an outcome that is not always known; all made up."""
    random = np.random.default_rng(3)
    count = 4000
    score = random.normal(size=count)
    frame = pd.DataFrame(
        {
            "score": np.round(score, 1),  # ties
            "amount": np.round(np.exp(random.normal(9, 1, count)), 2),
            "distance": np.abs(score),  # rises on both sides
            "branch": random.choice(list("abcd"), count),
            "day": pd.date_range("2023-01-15", "2023-06-20", periods=count).strftime("%b-%Y"),
            "label": (random.random(count) < 1 / (1 + np.exp(2 - score))).astype(int),
        }
    )
    risky = (frame["branch"] == "d") & (random.random(count) < 0.4)
    frame.loc[risky, "label"] = 1
    frame.loc[random.random(count) < 0.1 + 0.3 * frame["label"], "amount"] = np.nan
    frame["known"] = random.random(count) < 0.9
    return frame


@pytest.fixture(scope="module")
def figures(book: pd.DataFrame) -> Profile:
    texts = {
        name: [None if pd.isna(value) else str(value) for value in book[name]]
        for name in ("score", "amount", "distance", "branch", "day")
    }
    outcomes = book["label"].map({1: "lost", 0: "paid"}).where(book["known"], "open")
    return profiled(
        {**texts, "state": outcomes.tolist()},
        outcome="state",
        bad=["lost"],
        good=["paid"],
        time="day",
    )


def test_a_number_is_measured_as_the_usual_libraries_measure_it(
    book: pd.DataFrame, figures: Profile
) -> None:
    """Wrong weights of repeated values or a wrong rank would shift every quantile and AUC."""
    known = book[book["known"]]
    label = known["label"].to_numpy()
    assert (figures.known, figures.known_bad) == (len(known), label.sum())
    for name in ("score", "amount"):
        found, values = figures.column(name), book[name]
        np.testing.assert_allclose(
            found.quantiles, np.nanquantile(values, PROBABILITIES), rtol=1e-6
        )
        for side, outcome in ((found.quantiles_bad, 1), (found.quantiles_good, 0)):
            chosen = known.loc[known["label"] == outcome, name].dropna()
            np.testing.assert_allclose(side, np.quantile(chosen, PROBABILITIES), rtol=1e-6)
        present = known[name].notna()
        area = roc_auc_score(label[present], known[name][present])
        assert found.auc_value == pytest.approx(max(area, 1 - area), abs=1e-6)
    missing = figures.column("amount")
    area = roc_auc_score(label, known["amount"].isna())
    assert missing.auc_missing == pytest.approx(area, abs=1e-6)
    assert missing.missing == book["amount"].isna().sum()
    share = missing.missing_share
    assert share is not None
    assert (share.known, share.bad) == (
        known["amount"].isna().sum(),
        label[known["amount"].isna()].sum(),
    )


def test_what_rises_on_both_sides_is_seen_by_its_bins(figures: Profile) -> None:
    score, distance = figures.column("score"), figures.column("distance")
    assert score.auc_binned == pytest.approx(score.auc_value, abs=0.02)
    assert distance.distinct > 3000
    assert sum(share.rows for share in distance.bins) == figures.rows
    values = [str(float(value)) for value in np.linspace(-1, 1, 2000)]
    ends = ["1" if abs(float(value)) > 0.8 else "0" for value in values]
    both = profiled({"v": values, "y": ends}, outcome="y").column("v")
    assert both.auc_value == pytest.approx(0.5, abs=0.01)
    assert both.auc_binned == pytest.approx(1.0, abs=0.01)


def test_a_category_is_judged_by_rates_learnt_on_other_rows(
    book: pd.DataFrame, figures: Profile
) -> None:
    """Rates learnt on the same rows would make every number of an application a perfect leak."""
    known = book[book["known"]]
    in_sample = known["branch"].map(known.groupby("branch")["label"].mean())
    area = roc_auc_score(known["label"], in_sample)
    assert figures.column("branch").auc_value == pytest.approx(area, abs=0.02)
    assert {share.value: share.rows for share in figures.column("branch").categories} == book[
        "branch"
    ].value_counts().to_dict()
    random = np.random.default_rng(0)
    keys = profiled(
        {
            "key": [f"A-{number}" for number in range(3000)],
            "nearly": [f"B-{number // 3}" for number in range(3000)],
            "y": [str(int(value)) for value in random.random(3000) < 0.3],
        },
        outcome="y",
    )
    assert keys.column("key").auc_value == pytest.approx(0.5, abs=0.001)
    assert keys.column("nearly").auc_value == pytest.approx(0.5, abs=0.03)
    assert keys.column("key").numbers_rows
    assert not keys.column("nearly").numbers_rows


def test_months_and_the_relation_in_each(book: pd.DataFrame, figures: Profile) -> None:
    months = pd.to_datetime(book["day"], format="%b-%Y").dt.strftime("%Y-%m")
    assert {month: rows for month, rows, _ in figures.months} == months.value_counts().to_dict()
    known = book[book["known"]]
    rate = known.groupby(months[book["known"]])["label"].mean()
    for month, _, found in figures.months:
        assert found == pytest.approx(rate[month], abs=1e-6)
    for month, rows, area in figures.column("score").auc_by_month:
        here = known[months[book["known"]] == month]
        assert rows == len(here)
        assert area == pytest.approx(roc_auc_score(here["label"], here["score"]), abs=1e-6)


def test_correlations_are_spearmans(book: pd.DataFrame, figures: Profile) -> None:
    found = {frozenset(pair[:2]): pair[2] for pair in figures.correlations}
    complete = spearmanr(book["score"], book["distance"]).statistic
    assert found[frozenset(("score", "distance"))] == pytest.approx(complete, abs=1e-3)
    shared = book[["score", "amount"]].dropna()
    some = spearmanr(shared["score"], shared["amount"]).statistic
    assert found[frozenset(("score", "amount"))] == pytest.approx(some, abs=0.01)


@pytest.mark.parametrize(
    ("values", "type_", "low", "remove", "decimal"),
    [
        (["4.0", "5", "6.00", "12"], "integer", 4, (), "."),
        (["1.5", "-2", "3e2"], "number", -2, (), "."),
        (["$1,234.50", "$99.00", "$1,000,000.00"], "number", 99, ("$", ","), "."),
        (["12.5%", "7%", "0.1%"], "number", 0.1, ("%",), "."),
        (["12,5", "7,25", "100"], "number", 7.25, (), ","),
        (["1.234,56", "99,10", "2.000.000,00"], "number", 99.1, (".",), ","),
        (["36 months", "60 months"], "integer", 36, ("months",), "."),
        (["10+ years", "1 year", "< 1 year"] * 10, "category", None, (), "."),
        (["type1", "type2"] * 10, "category", None, (), "."),
        (["25-34", "35-44", ">74"] * 10, "category", None, (), "."),
        ([None, "", "  "], "empty", None, (), "."),
    ],
)
def test_numbers_are_read_as_they_are_written(
    values: list[str | None], type_: str, low: float | None, remove: tuple[str, ...], decimal: str
) -> None:
    """A decimal comma read as a thousands mark is a hundredfold amount."""
    found = one(values)
    assert (found.type, found.low, found.remove, found.decimal) == (type_, low, remove, decimal)
    assert found.unreadable == 0


@pytest.mark.parametrize(
    ("values", "form", "other", "low"),
    [
        (["2024-02-29", "2023-01-01"], None, None, "2023-01-01"),
        (["2024-02-29 10:15:00", "2023-01-01T00:00:00Z"], None, None, "2023-01-01"),
        (["Aug-2001", "Dec-1999"], "%b-%Y", None, "1999-12-01"),
        (["31/12/2020", "01/02/2020"], "%d/%m/%Y", None, "2020-02-01"),
        (["03/04/2020", "01/02/2020"], "%d/%m/%Y", "%m/%d/%Y", "2020-02-01"),
        (["20240131", "20231201"], "%Y%m%d", None, "2023-12-01"),
    ],
)
def test_dates_are_read_as_they_are_written(
    values: list[str | None], form: str | None, other: str | None, low: str
) -> None:
    """Where day and month could be either, the profile says so."""
    found = one(values)
    assert (found.type, found.date_format, found.date_format_or) == ("date", form, other)
    assert found.low == low


def test_what_cannot_be_read_is_counted() -> None:
    found = one([*(str(number) for number in range(1000)), "NaN", "inf", *["n/a"] * 25])
    assert (found.type, found.unreadable) == ("integer", 27)
    assert [(share.value, share.rows) for share in found.unreadable_values] == [("n/a", 25)]
    assert found.high == 999


def test_no_words_or_keys_of_a_person_are_shown(tmp_path: Path) -> None:
    """The page is passed around; what a person wrote stays in the book."""
    found = profiled(
        {
            "id": [str(70_000_000 + number) for number in range(400)],
            "story": [f"my sister Ann lent me {number} dollars" for number in range(400)],
            "odd </script>": ["<b>x</b>", "y"] * 200,
            "y": ["0", "1"] * 200,
        },
        outcome="y",
    )
    assert "sister" not in found.model_dump_json()
    page = tmp_path / "page.html"
    write_page(found, page)
    html = page.read_text()
    assert "sister" not in html
    assert "70,000,000" not in html
    assert "70000000" not in html
    assert "<b>x</b>" not in html
    assert "&lt;b&gt;x&lt;/b&gt;" in html
    assert "<script" not in html
    assert 'src="http' not in html


def test_what_cannot_be_asked_is_said() -> None:
    columns: dict[str, list[str | None]] = {"state": ["paid", "lost"], "amount": ["1", "2"]}
    for asked, told in (
        ({"outcome": "stat"}, "did you mean state"),
        ({"outcome": "state"}, "say which of its values are bad"),
        ({"outcome": "state", "bad": ["default"]}, "no row has state = default"),
        ({"time": "amount"}, "does not hold dates"),
    ):
        with pytest.raises(ProfileError, match=told):
            profiled(columns, **asked)


def test_an_empty_book_has_a_profile() -> None:
    found = profiled({"a": [], "b": []})
    assert (found.rows, [column.type for column in found.columns]) == (0, ["empty", "empty"])


def test_a_source_is_read_whole_and_its_malformed_lines_are_counted(tmp_path: Path) -> None:
    for part in (1, 2):
        lines = ["a;b", *(f"{number};x{number % 3}" for number in range(50)), "1;2;3;4"]
        (tmp_path / f"part{part}.csv").write_text("\n".join(lines) + "\n")
    found = profile_source(Source(path=str(tmp_path / "part*.csv"), delimiter=";"))
    assert (found.rows, found.malformed) == (100, 2)
    assert [column.type for column in found.columns] == ["integer", "category"]


def test_a_portfolios_outcome_is_read_in_the_books_own_words(tmp_path: Path) -> None:
    """`values` renames the outcome; the book still holds the old words."""
    file = tmp_path / "book.csv"
    file.write_text("a,state\n" + "1,CO\n2,FP\n" * 20)
    contract = Contract.model_validate(
        {
            "name": "renamed",
            "title": "Renamed outcomes",
            "source": {"path": str(file)},
            "time": {"replay": {"start": "2024-01-01", "periods": 2}},
            "outcome": {"bad": ["lost"], "good": ["paid"], "matures_after_days": 1},
            "columns": [
                {"name": "a", "type": "integer"},
                {
                    "name": "state",
                    "type": "category",
                    "categories": ["lost", "paid"],
                    "values": {"CO": "lost", "FP": "paid"},
                    "role": "outcome",
                },
            ],
        }
    )
    found = profile_book(contract, contract.source)
    assert (found.known, found.known_bad) == (40, 20)


def test_stats_prints_json_and_writes_the_page(tmp_path: Path) -> None:
    file, page = tmp_path / "book.csv", tmp_path / "page.html"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows(
            [["amount", "fee", "y"], *([n, n % 2, n % 2] for n in range(200))]
        )
    asked = ["stats", str(file), "--outcome", "y", "--html", str(page)]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    suspicions = told.pop("suspicions")
    assert Profile.model_validate(told).rows == 200
    assert [(one["column"], one["verdict"]) for one in suspicions] == [("fee", "blocked")]
    assert "amount" in page.read_text()
    missing = CliRunner().invoke(app, ["stats", str(tmp_path / "none.csv")])
    assert missing.exit_code == 1
    assert "none.csv" in missing.output
