"""The contract proposed for a book nobody has described: it loads, and it leaves the leaks out."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from loan_platform.contract import Contract, read_contract
from loan_platform.contract.portfolio import Source
from loan_platform.contract.portfolios import FOLDER
from loan_platform.engine.home import Home
from loan_platform.ingest import vocabulary
from loan_platform.ingest.admission import admissible
from loan_platform.ingest.leaks import evidence
from loan_platform.ingest.profile import PROBABILITIES, Profile, profile_relation
from loan_platform.ingest.simulate import simulate
from loan_platform.ingest.source import locate
from loan_platform.ingest.staging import open_book
from loan_platform.proposal.drafting import draft, lasting, portfolio_name, write_draft
from loan_platform.proposal.propose import ProposalError, Wishes, propose
from loan_platform.training.families import Fit, Watched, lightgbm, task_of
from loan_platform.training.rows import known_rows
from loan_platform.training.split import part
from loan_platform_tests.proposal.sixth_book import write_sixth_book
from loan_platform_tests.training.books import cleaned_table, write_months

# Hand-written contract -> its book, and the columns that must never reach a model.
DECISIONS = {"loan_grade", "loan_int_rate", "grade", "sub_grade", "int_rate", "installment"}
LEAKS = {
    "credit_risk": ("credit_risk.csv.gz", {"loan_percent_income"}),
    "loan_approval": ("loan_approval.csv.gz", {"person_gender"}),
    "playground_s4e10": ("playground_s4e10_train.csv.gz", {"loan_percent_income", "id"}),
    "loan_default": (
        "loan_default.csv.gz",
        {"Interest_rate_spread", "rate_of_interest", "Upfront_charges", "credit_type", "Gender"},
    ),
    "lending_club": (
        "lending_club_2007_2011.csv.gz",
        {
            "total_pymnt", "total_pymnt_inv", "total_rec_prncp", "total_rec_int", "recoveries",
            "total_rec_late_fee", "collection_recovery_fee", "last_pymnt_d", "last_pymnt_amnt",
            "last_credit_pull_d", "last_fico_range_high", "last_fico_range_low", "out_prncp",
            "out_prncp_inv", "next_pymnt_d", "debt_settlement_flag", "settlement_status",
            "settlement_amount", "hardship_flag", "url", "desc",
        },
    ),
}  # fmt: skip
MOST_ROWS = 12_000
Columns = Mapping[str, Sequence[str | None]]
TODAY = dt.date(2026, 3, 15)
AS_OF = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


def quietly(_: str) -> None:
    pass


def profiled(columns: Columns, outcome: str | None = None, time: str | None = None) -> Profile:
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    with duckdb.connect() as connection:
        connection.register("rows_of_it", table)
        return profile_relation(
            connection, "rows_of_it", list(columns), outcome=outcome, bad=(), time=time
        )


def proposed(columns: Columns, folder: Path, **wishes: object) -> Contract:
    """The contract of a small book, read from its file."""
    outcome = wishes.get("outcome", "loan_status")
    profile = profiled(columns, outcome=str(outcome))
    made = propose(profile, Source(path="x.csv"), "x", Wishes(**wishes), today=TODAY)  # type: ignore[arg-type]
    file = folder / "defs.yaml"
    file.write_text(made.text, encoding="utf-8")
    return read_contract(file)


def accounted(contract: Contract) -> list[str]:
    """Every column the contract names, as often as it does."""
    grouped = [name for group in contract.ignored for name in group.columns]
    return [*(column.name for column in contract.columns), *grouped]


def small_book(rows: int = 200) -> dict[str, Sequence[str | None]]:
    return {
        "loan_amnt": [str(1000 + 37 * n % 900) for n in range(rows)],
        "annual_inc": [str(20000 + 91 * n % 5000) for n in range(rows)],
        "purpose": ["car" if n % 3 else "home" for n in range(rows)],
        "loan_status": ["1" if n % 7 == 0 else "0" for n in range(rows)],
    }


TEXTS = st.one_of(
    st.sampled_from(
        ["yes", "No", "null", "~", "1e5", "0x1F", "- a", "a: b", "#1", "'", '"', "a, b", "[x]", "{",
         "10+ years", "< 1 year", "n/a", "2001-02-03", "Aug-2001", "10.5%", "1.234,5", "$1,200",
         "nan", "inf", "1e308", "-0.0", "é\u2028ü", "%Y", "=", "a  b", "0", "1", "true", "12:30"]
    ),
    st.text(max_size=12),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.dates().map(str),
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(
        ["id", "loan_amnt", "annual_inc", "term", "issue_d", "desc", "grade", "age", "outcome",
         "revol_util", "inq_last_6mths", "select", "a b", "a-b", "1st", "total_pymnt", "dti",
         "zip_code", "emp_length", "application_id", "applied_at", "loan_to_income", "open_acc"]
    ),
    st.text(min_size=1, max_size=10),
)  # fmt: skip


@st.composite
def little_books(draw: st.DrawFn) -> Columns:
    """A few columns of anything, a column of figures, a 0/1 outcome; values repeat."""
    rows = draw(st.integers(4, 40))
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique_by=str.lower))
    columns: dict[str, list[str | None]] = {}
    for name in names:
        if name.strip() and name.lower() not in ("loan_status", "figure") and "\x00" not in name:
            some = draw(st.lists(st.one_of(st.none(), TEXTS), min_size=1, max_size=8))
            columns[name] = [some[row % len(some)] for row in range(rows)]
    bad_every = draw(st.integers(2, 4))
    columns["loan_status"] = ["1" if row % bad_every == 0 else "0" for row in range(rows)]
    repeat = draw(st.sampled_from([1, 1, 60]))
    repeated = {name: values * repeat for name, values in columns.items()}
    return repeated | {"figure": [str(row * 37 % 101) for row in range(rows * repeat)]}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(book=little_books())
def test_what_is_proposed_loads_and_accounts_for_every_column(
    book: Columns, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Names and values that YAML, SQL or the contract read otherwise than the book means them."""
    profile = profiled(book, outcome="loan_status")
    made = propose(profile, Source(path="x.csv"), "x", Wishes(), today=TODAY)
    file = tmp_path_factory.getbasetemp() / "defs.yaml"
    file.write_text(made.text, encoding="utf-8")
    contract = read_contract(file)
    assert sorted(accounted(contract)) == sorted(book)
    assert all(reason.strip() for reason in contract.ignored_columns.values())
    assert contract.outcome_column.name == "loan_status"
    listed = {c.name: c.categories for c in contract.feature_columns if c.type == "category"}
    for name, categories in listed.items():
        held = {value.strip(" ") for value in book[name] if value and value.strip(" ")}
        assert set(categories or ()) == held


def test_a_sixth_book_is_running_without_a_question(tmp_path: Path, home: Home) -> None:
    """A file as lenders write it; a book of which init refuses rows that are all right."""
    book = write_sixth_book(tmp_path / "Sixth Book 2022.csv")
    drafted = draft(Source(path=str(book)), None, Wishes(), quietly)
    assert drafted.name == "sixth_book_2022"
    contract = write_draft(drafted, tmp_path / "sixth_book_2022" / "defs.yaml")

    assert (contract.source.delimiter, contract.source.encoding) == (";", "latin-1")
    assert contract.source.path == str(book)
    assert contract.time_column is not None
    assert contract.time_column.name == "Application Date"
    assert contract.key_column is not None
    assert set(contract.outcome.bad) == {"Charged Off", "Default", "Late (31-120 days)"}
    assert contract.outcome.good == ["Fully Paid"]
    assert {c.name for c in contract.with_role("protected")} == {"Gender", "Age"}
    out = contract.ignored_columns
    assert set(out) == {"City", "Grade", "Total Paid", "Collection Fee", "Remarks", "Product"}
    assert "known only after origination" in out["Total Paid"]
    assert "known only after origination" in out["Collection Fee"]
    assert out["Product"] == "constant: one value only"
    assert set(contract.features) == {"loan_to_income", "days_since_first_credit_line"}

    with open_book(contract, locate(contract, home)) as staged:
        rows = admissible(contract, staged).to_pylist()
    assert len(rows) == 2999, "all but the applicant of 144 years"
    row = next(row for row in rows if row["application_id"] == "L00040")
    line = book.read_text("latin-1").splitlines()[41].split(";")
    assert row["Loan Amount"] == float(line[2].replace(",", "."))
    assert row["Use of Lines"] == float(line[4].replace(",", ".").rstrip("%"))
    assert row["Job"] is None, "n/a is no time in employment"
    assert row["First Credit Line"].strftime("%b-%Y") == line[6]
    assert row["Purpose"] == line[7]
    assert row["outcome"] == {"Fully Paid": 0, "Current": None}.get(line[-1], 1)


def test_a_stand_in_drawn_from_a_proposal_is_admitted_and_discloses_nobody(tmp_path: Path) -> None:
    """Figures that give away the richest applicant, or that the contract itself refuses."""
    book = write_sixth_book(tmp_path / "sixth.csv")
    drafted = draft(Source(path=str(book)), None, Wishes(), quietly)
    contract = write_draft(drafted, tmp_path / "sixth" / "defs.yaml")
    assert contract.simulation is not None
    assert len(simulate(contract, rows=300)) == 300
    fields = [line.split(";") for line in book.read_text("latin-1").splitlines()[1:]]
    incomes = sorted(float(line[3].replace(",", ".")) for line in fields)
    figures = contract.simulation.columns["Annual Income"]
    for side in (figures.good, figures.bad):
        assert isinstance(side, list)
        assert len(side) == len(PROBABILITIES)
        assert sum(income > side[-1] for income in incomes) >= 10
        assert sum(income < side[0] for income in incomes) >= 10
        assert not set(side) & set(incomes)


@pytest.mark.parametrize(
    ("values", "bad", "good", "undecided"),
    [
        (["0", "1"], {"1"}, {"0"}, set()),
        (["1", "2"], {"2"}, {"1"}, set()),
        (["good", "bad"], {"bad"}, {"good"}, set()),
        (["Unpaid", "Paid"], {"Unpaid"}, {"Paid"}, set()),
        (["No Default", "Default"], {"Default"}, {"No Default"}, set()),
        (
            ["Fully Paid", "Charged Off", "Current", "In Grace Period", "Late (16-30 days)"],
            {"Charged Off", "Late (16-30 days)"}, {"Fully Paid"}, {"Current", "In Grace Period"},
        ),
        (["Written-off", "Closed", "Issued"], {"Written-off"}, {"Closed"}, {"Issued"}),
    ],
)  # fmt: skip
def test_statuses_are_read_as_lenders_mean_them(
    values: list[str], bad: set[str], good: set[str], undecided: set[str], tmp_path: Path
) -> None:
    """A loan that is unpaid counted as paid, or one that still runs as good."""
    book = small_book() | {"loan_status": [values[n % len(values)] for n in range(200)]}
    profile = profiled(book)
    made = propose(profile, Source(path="x.csv"), "x", Wishes(), today=TODAY)
    outcome = yaml.safe_load(made.text)["attributes"]["outcome"]
    assert (set(outcome["bad"]), set(outcome["good"])) == (bad, good)
    file = tmp_path / "defs.yaml"
    file.write_text(made.text, encoding="utf-8")
    listed = set(read_contract(file).outcome_column.categories or ())
    assert listed - bad - good == undecided


def test_what_cannot_be_guessed_is_asked_for(tmp_path: Path) -> None:
    """A wrong guess, or a refusal that does not say how to go on."""
    book = small_book()
    renamed = {("went_wrong" if name == "loan_status" else name): v for name, v in book.items()}
    with pytest.raises(ProposalError, match=r"--outcome \(columns with two values: .*went_wrong"):
        propose(profiled(renamed), Source(path="x.csv"), "x", Wishes())
    assert proposed(renamed, tmp_path, outcome="went_wrong").outcome.bad == ["1"]

    answered = book | {"loan_status": ["Y" if n % 3 else "N" for n in range(200)]}
    with pytest.raises(ProposalError, match=r"which values of loan_status are bad .* --bad VALUE"):
        propose(profiled(answered), Source(path="x.csv"), "x", Wishes())

    for wishes, problem in [
        (Wishes(outcome="loan_statu"), "did you mean loan_status"),
        (Wishes(time="purpose"), "holds no dates"),
        (Wishes(bad=("2",)), "never holds 2"),
        (Wishes(use=("purpose",), ignore=("purpose",)), "give one"),
        (Wishes(ignore=("loan_amnt", "annual_inc", "purpose")), "no column is left"),
    ]:
        with pytest.raises(ProposalError, match=problem):
            propose(profiled(book, "loan_status"), Source(path="x.csv"), "x", wishes)


def test_wishes_override_what_is_proposed(tmp_path: Path) -> None:
    """An option without effect; a leak used without a word of it in the contract."""
    flags = ["1" if n % 7 == 0 else "0" for n in range(400)]
    book = small_book(400) | {"age": [str(20 + n % 40) for n in range(400)], "mirror": flags}
    plain = proposed(book, tmp_path)
    assert plain.column("age").role == "protected"
    assert "leaks the outcome" in plain.ignored_columns["mirror"]
    asked = proposed(book, tmp_path, use=("age", "mirror"), ignore=("purpose",))
    assert asked.column("age").role == "feature"
    assert asked.column("mirror").leak_accepted
    assert asked.ignored_columns["purpose"] == "left out on request"


def test_ranges_hold_what_is_honest_and_no_more(tmp_path: Path) -> None:
    """Absurd values that are admitted, and honest ones that are not."""
    book = small_book(1200)
    ages = ["144" if n == 5 else str(20 + n % 40) for n in range(1200)]
    employed = ["123" if n == 9 else str(n % 30) for n in range(1200)]
    contract = proposed(book | {"age": ages, "emp_length": employed}, tmp_path)
    assert contract.column("age").range == (18, 100)
    assert contract.column("emp_length").range == (0, 60)
    income = contract.column("annual_inc").range
    assert income is not None
    assert income[0] <= 0
    assert 24_999 < income[1] <= 1_000_000


def test_a_protected_number_has_bands_and_the_contract_says_what_they_are_for(
    tmp_path: Path,
) -> None:
    """Groups that no law knows, or a sex of 1 and 2 in quarters, one of which holds them all."""
    protected: dict[str, Sequence[str | None]] = {
        "age": [f"{n % 40 + 20} years" for n in range(200)],
        "sex": ["2" if n % 5 else "1" for n in range(200)],
        "disability": [str(n * 7 % 97) for n in range(200)],
        "gender": ["m" if n % 3 else "f" for n in range(200)],
    }
    contract = proposed(small_book() | protected, tmp_path)
    assert {c.name for c in contract.with_role("protected")} == set(protected)
    assert contract.column("age").bands == [25, 40], "nobody is 62"
    assert contract.column("sex").bands == [2]
    quarters = contract.column("disability").bands
    assert quarters is not None
    assert len(quarters) == 3
    assert contract.column("gender").bands is None
    text = " ".join((tmp_path / "defs.yaml").read_text().replace("#", " ").split())
    assert text.count("check: bands are where the groups begin whose approvals are compared") == 3
    assert "Regulation B protects 62 and over, the other ages are guesses - {name: age," in text
    used = proposed(small_book() | protected, tmp_path, use=("age",))
    assert used.column("age").bands is None, "a feature has no groups"


def test_a_ratio_is_computed_from_what_is_applied_for(tmp_path: Path) -> None:
    """A ratio of a ratio, or the lender's own figure where an applicant's would do."""
    given = {"loan_percent_income": [f"0.{n % 40 + 10}" for n in range(200)]}
    contract = proposed(given | small_book(), tmp_path)
    assert contract.features["loan_to_income"].sql == "loan_amnt / nullif(annual_inc, 0)"
    assert "computed afresh" in contract.ignored_columns["loan_percent_income"]


def test_names_mean_what_they_say() -> None:
    """`total_acc` taken for a payment, `TotalPaid` for none."""
    after = ["total_pymnt", "TotalPaid", "last_fico_range_low", "recoveries", "hardship_flag",
             "settlement_date", "out_prncp_inv", "next_pymnt_d", "chargeoff_date"]  # fmt: skip
    before = ["total_acc", "last_name", "delinq_2yrs", "chargeoff_within_12_mths", "pub_rec",
              "mths_since_last_delinq", "previous_loan_defaults_on_file"]  # fmt: skip
    assert all(vocabulary.after_origination(name) for name in after)
    assert not any(vocabulary.after_origination(name) for name in before)
    for name in ("grade", "sub_grade", "int_rate", "rate_of_interest", "Upfront_charges"):
        assert vocabulary.lender_decision(name), name
    assert vocabulary.normalised("InterestRateSpread") == "interest_rate_spread"


def test_where_a_book_lies_and_what_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A contract that holds in one folder only, or with a password in it."""
    (tmp_path / "books").mkdir()
    file = tmp_path / "books" / "2024 Loans.csv.gz"
    file.touch()
    monkeypatch.chdir(tmp_path)
    assert lasting(Source(path="books/2024 Loans.csv.gz")).path == str(file)
    monkeypatch.setenv("LOAN_DATA_DIR", str(tmp_path / "books"))
    assert lasting(Source(path=str(file))).path == "2024 Loans.csv.gz"
    assert portfolio_name(Source(path=str(file)), None) == "book_2024_loans"
    assert portfolio_name(Source(path="s3://bucket/loans/{partition}.csv"), None) == "loans"
    assert portfolio_name(Source(url="postgresql://h/d", table="risk.Loans"), None) == "loans"
    with pytest.raises(ProposalError, match="--name"):
        portfolio_name(Source(url="postgresql://h/d", query="SELECT 1"), None)
    with pytest.raises(ProposalError, match="lower-case"):
        portfolio_name(Source(path="x.csv"), "My Book")
    with pytest.raises(ProposalError, match=re.escape("${NAME}")):
        draft(Source(url="postgresql://u:secret@h/d", table="t"), None, Wishes(), quietly)


@pytest.mark.slow
def test_the_five_real_books(real_data: Path, tmp_path: Path) -> None:
    """A leak or the lender's decision in a proposed contract, or a much worse model from it.

    Held against the hand-written contracts on rows both admit, a sample of each book.
    """
    for name, (file, never) in LEAKS.items():
        drafted = draft(Source(path=file), name, Wishes(), quietly)
        contract = write_draft(drafted, tmp_path / name / "defs.yaml")
        header = [column.name for column in drafted.profile.columns]
        assert sorted(accounted(contract)) == sorted(header), name
        assert all(reason.strip() for reason in contract.ignored_columns.values()), name
        seen = {column.name for column in contract.input_columns}
        assert not seen & (never | DECISIONS), name
        blocked = {s.column for s in evidence(drafted.profile) if s.verdict == "blocked"}
        assert not seen & blocked, name
        by_hand = read_contract(FOLDER / name / "defs.yaml")
        ours, theirs = held_out_auc(contract, by_hand, real_data / file, tmp_path / name)
        assert abs(ours - theirs) < 0.01 or ours > theirs, (name, ours, theirs)


def held_out_auc(one: Contract, other: Contract, book: Path, folder: Path) -> list[float]:
    """AUC of a model of either contract, learnt and judged on the same rows."""
    tables = [cleaned_table(contract, book) for contract in (one, other)]
    ids = [set(table["application_id"].to_pylist()) for table in tables]
    both = sorted(ids[0] & ids[1])
    assert len(both) > 0.99 * max(map(len, ids))
    chosen = pa.array(np.random.default_rng(7).choice(both, min(len(both), MOST_ROWS), False))
    found = []
    for position, (contract, table) in enumerate(zip((one, other), tables, strict=True)):
        sample = table.filter(pc.is_in(table["application_id"], chosen))
        (folder / str(position)).mkdir(parents=True)
        rows = known_rows(contract, write_months(sample, folder / str(position)), AS_OF)
        used = part(rows)
        fit, watch, judge = (rows.where(used == name) for name in ("fit", "calibrate", "judge"))
        # At a higher rate, as the difference is asked for and not the best model.
        grown = lightgbm.fit(
            Fit(task_of(contract), fit.matrix, fit.outcome, Watched(watch.matrix, watch.outcome)),
            {"learning_rate": 0.2},
        )
        found.append(float(roc_auc_score(judge.outcome, grown.scorer.margin(judge.matrix))))
    return found
