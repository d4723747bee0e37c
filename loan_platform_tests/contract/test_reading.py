"""A bad contract is told with file, line, place, what is wrong and what mends it."""

import textwrap
from pathlib import Path

import pytest
from pydantic import ValidationError

from loan_platform.contract import Contract, ContractError, read_contract
from loan_platform_tests import club_loans
from loan_platform_tests.home_loans import DEFS_YAML

MINIMAL = """\
type: loan_platform.components.LoanPortfolio
attributes:
  name: small
  title: The least a contract says
  source: {path: small.csv}
  time:
    replay: {start: 2024-01-01, periods: 6}
  outcome: {bad: ["1"], good: ["0"], matures_after_days: 30}
  columns:
    - {name: amount, type: number}
    - {name: status, type: category, categories: ["0", "1"], role: outcome}
"""


def read(tmp_path: Path, text: str) -> Contract:
    path = tmp_path / "defs.yaml"
    path.write_text(text, encoding="utf-8")
    return read_contract(path)


def problems(tmp_path: Path, text: str) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(ContractError) as raised:
        read(tmp_path, text)
    return str(raised.value).replace(str(tmp_path) + "/", "").splitlines()


def changed(old: str, new: str) -> str:
    assert DEFS_YAML.count(old) == 1, "the test changes one place"
    return DEFS_YAML.replace(old, new)


def test_the_least_contract_has_what_it_says_and_the_defaults(tmp_path: Path):
    contract = read(tmp_path, MINIMAL)
    assert contract.model_inputs == ["amount"]
    assert contract.outcome_column.name == "status"
    assert contract.duplicates == "quarantine"
    assert (contract.rules, contract.features, contract.policy.bands) == ([], {}, None)


# what is changed, into what; the text on whose line the problem stands; its place; its words
ONE_PROBLEM = {
    "unknown column in a feature": (
        'sql: ln("loan amount")',
        'sql: ln("loan amout")',
        'sql: ln("loan amout")',
        "features.log_amount.sql",
        "did you mean loan amount?",
    ),
    "syntax of a feature": (
        'sql: ln("loan amount")',
        "sql: years_in_job +* 2",
        "sql: years_in_job +* 2",
        "features.log_amount.sql",
        "not valid SQL near",
    ),
    "empty feature": (
        'sql: ln("loan amount")',
        'sql: ""',
        'sql: ""',
        "features.log_amount.sql",
        "is empty",
    ),
    "open quote": (
        'sql: ln("loan amount")',
        "sql: years_in_job = 'x",
        "years_in_job = 'x",
        "features.log_amount.sql",
        "close every quote",
    ),
    "unknown function": (
        'sql: ln("loan amount")',
        "sql: flor(years_in_job)",
        "flor(",
        "features.log_amount.sql",
        'Did you mean "floor"?',
    ),
    "a feature that is no number": (
        'sql: ln("loan amount")',
        "sql: reason",
        "sql: reason",
        "features.log_amount.sql",
        "gives VARCHAR, but must give a number",
    ),
    "ignored column, with its reason": (
        'sql: ln("loan amount")',
        "sql: length(note)",
        "length(note)",
        "features.log_amount.sql",
        "note, which stays out of the model: free text",
    ),
    "protected column in a feature": (
        'sql: ln("loan amount")',
        "sql: CASE WHEN sex = 'f' THEN 1 ELSE 0 END",
        "WHEN sex",
        "features.log_amount.sql",
        "stays out of the model",
    ),
    "the outcome in a feature": (
        'sql: ln("loan amount")',
        "sql: CASE WHEN outcome = 'paid' THEN 1 ELSE 0 END",
        "WHEN outcome",
        "features.log_amount.sql",
        "stays out of the model",
    ),
    "aggregate": (
        'sql: ln("loan amount")',
        'sql: avg("loan amount")',
        "avg(",
        "features.log_amount.sql",
        "uses an aggregate",
    ),
    "window function": (
        'sql: ln("loan amount")',
        "sql: lag(years_in_job) OVER (ORDER BY years_in_job)",
        "lag(",
        "features.log_amount.sql",
        "uses a window function",
    ),
    "clock": (
        'sql: ln("loan amount")',
        "sql: epoch(now())",
        "now()",
        "features.log_amount.sql",
        "uses now(), which is not the same at every call",
    ),
    "chance": (
        'sql: ln("loan amount")',
        "sql: random()",
        "random()",
        "features.log_amount.sql",
        "uses a random number",
    ),
    "query": (
        'sql: ln("loan amount")',
        "sql: (SELECT 1)",
        "(SELECT 1)",
        "features.log_amount.sql",
        "uses a query",
    ),
    "many rows of one": (
        'sql: ln("loan amount")',
        "sql: unnest([1, 2])",
        "unnest",
        "features.log_amount.sql",
        "uses a function that gives rows",
    ),
    "what Spark has no word for": (
        'sql: ln("loan amount")',
        "sql: TRY(ln(years_in_job))",
        "TRY(",
        "features.log_amount.sql",
        "is not known to mean the same on Spark",
    ),
    "a cast that fails": (
        'sql: ln("loan amount")',
        "sql: CAST(reason AS DOUBLE)",
        "CAST(reason",
        "features.log_amount.sql",
        "fails on a row it may meet",
    ),
    "a feature named as a column": (
        "log_amount:",
        "sex:",
        "    sex:",
        "features.sex",
        "is a column already",
    ),
    "a feature named as a platform column": (
        "log_amount:",
        "applied_at:",
        "    applied_at:",
        "features.applied_at",
        "is a column already",
    ),
    "rule that is no condition": (
        "sex = 'f' AND years_in_job > 59",
        "years_in_job",
        "name: unlikely",
        "rules[1].refuse_when",
        "must give a boolean",
    ),
    "rule with an unknown column": (
        "sex = 'f' AND years_in_job > 59",
        "sexe = 'f'",
        "name: unlikely",
        "rules[1].refuse_when",
        "did you mean sex?",
    ),
    "range upside down": (
        "range: [1000, 900000]",
        "range: [900000, 1000]",
        "name: loan amount",
        "columns[3].range",
        "low 900000 is not below high 1000",
    ),
    "range of a category": (
        "categories: [f, m]",
        "range: [0, 1], categories: [f, m]",
        "name: sex",
        "columns[8].range",
        "a category column has no range",
    ),
    "category without values": (
        ", categories: [f, m]",
        "",
        "name: sex",
        "columns[8].categories",
        "add categories",
    ),
    "category twice": (
        "categories: [f, m]",
        "categories: [f, f]",
        "name: sex",
        "columns[8].categories",
        "listed twice",
    ),
    "ignored without a reason": (
        ", reason: free text",
        "",
        "name: note",
        "columns[9].role",
        "says why; add reason:",
    ),
    "text as a feature": (
        "role: ignored, reason: free text, ",
        "",
        "name: note",
        "columns[9].role",
        "a text column cannot be a feature",
    ),
    "duplicate column": (
        "name: note",
        "name: Order",
        "name: Order",
        "columns[9].name",
        "Order is listed twice",
    ),
    "a feature column named as the platform's": (
        "name: note, type: text, role: ignored, reason: free text",
        "name: origin, type: number",
        "name: origin",
        "columns[9].name",
        "a name the platform uses itself",
    ),
    "no outcome": (
        "type: category, categories: [paid, defaulted, written off, open],\n       role: outcome,",
        "type: text, role: ignored, reason: leak,",
        "  columns:",
        "columns",
        "no column has role outcome",
    ),
    "two keys": (
        "name: note, type: text, role: ignored, reason: free text, nulls: allowed",
        "name: note, type: text, role: key",
        "name: note",
        "columns[9].role",
        "a second column with role key",
    ),
    "a key that may be missing": (
        "role: key",
        "role: key, nulls: allowed",
        "role: key",
        "columns[0].nulls",
        "every row needs its key",
    ),
    "outcome both good and bad": (
        "good: [paid]",
        "good: [paid, defaulted]",
        "  outcome:\n",
        "outcome",
        "defaulted means both bad and good",
    ),
    "time neither by column nor by replay": (
        "type: date, role: time",
        "type: date, role: ignored, reason: unused",
        "  time:",
        "time",
        "give either a column with role: time, or time.replay",
    ),
    "time both by column and by replay": (
        "start: 2024-01-01",
        "replay: {start: 2024-01-01, periods: 3}",
        "  time:",
        "time",
        "give either a column with role: time, or time.replay",
    ),
    "time that is no date": (
        "type: date, role: time",
        "type: text, role: time",
        "name: applied_at",
        "columns[1].type",
        "the time column has type: date",
    ),
    "book that starts within a month": (
        "start: 2024-01-01",
        "start: 2024-01-15",
        "start: 2024-01-15",
        "time.start",
        "write 2024-01-01",
    ),
    "unknown key": (
        "matures_after_days: 45",
        "matures_after_days: 45\n    mature_after: 3",
        "mature_after: 3",
        "outcome.mature_after",
        "check the spelling or remove it",
    ),
    "unknown type": (
        "type: integer",
        "type: whole",
        "type: whole",
        "columns[5].type",
        "'whole' is not one of",
    ),
    "a category YAML takes for something else": (
        "categories: [f, m]",
        "categories: [f, no]",
        "name: sex",
        "columns[8].categories[1]",
        "must be text; put it in quotes",
    ),
    "a monotone category": (
        "role: protected",
        "role: protected, monotone: increasing",
        "name: sex",
        "columns[8].monotone",
        "only a numeric feature",
    ),
}


@pytest.mark.parametrize("case", ONE_PROBLEM)
def test_one_problem_is_told_at_its_line(case: str, tmp_path: Path):
    old, new, at, place, words = ONE_PROBLEM[case]
    text = changed(old, new)
    line = text[: text.index(at) + len(at.rstrip("\n")) - len(at.strip())].count("\n") + 1
    (told,) = problems(tmp_path, text)
    assert told.startswith(f"defs.yaml:{line}: {place}: ")
    assert words in told


BANDS = """\
  policy:
    bands:
      approve: [0, 0.3]
      refer: [0.3, 0.5]
      decline: [0.5, 1]
"""


@pytest.mark.parametrize(
    ("old", "new", "at", "place", "words"),
    [
        ("refer: [0.3", "refer: [0.2", "refer", "policy.bands.refer", "overlaps approve"),
        ("refer: [0.3", "refer: [0.4", "refer", "policy.bands.refer", "leaves a gap after approve"),
        ("refer: [0.3, 0.5", "refer: [0.5, 0.3", "refer", "policy.bands.refer", "not below"),
        ("decline: [0.5, 1", "decline: [0.5, 0.9", "bands:", "policy.bands", "must cover 0 to 1"),
        ("approve: [0,", "approve: [0.1,", "bands:", "policy.bands", "must cover 0 to 1"),
    ],
)
def test_bands_cover_every_probability_once(
    old: str, new: str, at: str, place: str, words: str, tmp_path: Path
):
    assert read(tmp_path, DEFS_YAML + BANDS).policy.bands is not None
    text = DEFS_YAML + BANDS.replace(old, new)
    line = text[: text.rindex(at)].count("\n") + 1
    told = problems(tmp_path, text)
    assert any(one.startswith(f"defs.yaml:{line}: {place}: ") and words in one for one in told)


def test_several_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path):
    text = changed("range: [0, 60]", "range: [60, 0]")
    text = text.replace('ln("loan amount")', "ln(amount)")
    text = text.replace("role: ignored,", "role: ignored, monotone: increasing,")
    told = problems(tmp_path, text)
    places = [line.split(": ")[1] for line in told]
    assert places == ["columns[6].range", "columns[9].monotone", "features.log_amount.sql"]
    lines = [int(line.split(":")[1]) for line in told]
    assert lines == sorted(lines)


def test_an_overflow_is_found_unless_the_range_rules_it_out(tmp_path: Path):
    squared = changed('sql: ln("loan amount")', 'sql: \'"order" * "order"\'')
    assert "log_amount" in read(tmp_path, squared).features
    (told,) = problems(tmp_path, squared.replace(", range: [1, 4]", ""))
    assert "Overflow" in told
    assert "::double in a product" in told


def test_a_rule_sees_values_outside_their_range(tmp_path: Path):
    """A rule is asked before a row is refused for its range, so the range does not protect it."""
    old = "\"sex = 'f' AND years_in_job > 59\""
    (told,) = problems(tmp_path, changed(old, '\'"order" * "order" > 4\''))
    assert "rules[1].refuse_when: fails on a row it may meet" in told


def test_broken_yaml_is_told_at_its_line(tmp_path: Path):
    (told,) = problems(tmp_path, changed("good: [paid]", "good: [paid"))
    line = DEFS_YAML[: DEFS_YAML.index("good: [paid]")].count("\n") + 1
    assert told.startswith(f"defs.yaml:{line + 1}: not valid YAML: ")


def test_a_control_character_is_told_at_its_line(tmp_path: Path):
    (told,) = problems(tmp_path, changed("Made-up home loans", "Made-up\x07 home loans"))
    assert told.startswith("defs.yaml:5: not valid YAML: ")


def test_a_file_that_is_no_text_is_told(tmp_path: Path):
    path = tmp_path / "defs.yaml"
    path.write_bytes(DEFS_YAML.replace("Made-up", "Erfundene Häuser").encode("latin-1"))
    with pytest.raises(ContractError, match="is not UTF-8 text; save it as UTF-8"):
        read_contract(path)


def test_a_file_that_is_missing_is_told(tmp_path: Path):
    with pytest.raises(ContractError, match=r"nowhere\.yaml: cannot be read"):
        read_contract(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["", "type: x\n", "- a\n", "# nothing\n"])
def test_a_file_without_a_contract_is_told(text: str, tmp_path: Path):
    (told,) = problems(tmp_path, text)
    assert "no attributes: block" in told


def test_a_file_a_month_goes_with_no_replay_and_no_stand_in(credit_risk: Contract):
    document = credit_risk.model_dump(mode="json", exclude_none=True)
    with pytest.raises(ValidationError) as raised:
        Contract.model_validate(document | {"source": {"path": "loans/{partition}.csv"}})
    places = {problem["loc"] for problem in raised.value.errors()}
    assert places == {("source", "path"), ("simulation",)}


CLUB_YAML = "attributes:\n" + textwrap.indent(club_loans.ATTRIBUTES, "  ")

# what is changed, into what; the place of the problem; its words
CLUB_PROBLEM = {
    "a format of a number": (
        'remove: ["%"]', 'format: "%b"', "columns[3].format", "how a date column is written"
    ),
    "a decimal comma in a date": (
        'format: "%b-%Y"', 'decimal: ","', "columns[1].decimal", "number or integer column"
    ),
    "a format without a year": ("%b-%Y", "%b-%d", "columns[1].format", "has no year"),
    "a format with two months": ("%b-%Y", "%b-%m-%Y", "columns[1].format", "more than one month"),
    "a format with an hour": ("%b-%Y", "%b-%Y-%H", "columns[1].format", "%H is none of"),
    "a strange separator": ("%b-%Y", "%b^%Y", "columns[1].format", "'^' cannot stand between"),
    "a sign that is the decimals'": (
        "remove: [EUR]", 'remove: [","]', "columns[4].remove", "takes the decimals' sign off"
    ),
    "a sign that turns a number round": (
        "remove: [EUR]", 'remove: ["-"]', "columns[4].remove", "changes the number"
    ),
    "digits taken off": ("remove: [EUR]", "remove: [EUR1]", "columns[4].remove", "takes digits"),
    "a value that is no whole number": (
        "10+ years: 10,", "10+ years: 9.5,", "columns[5].values.10+ years", "no whole number"
    ),
    "a value outside the range": (
        "10+ years: 10,", "10+ years: 11,", "columns[5].values.10+ years", "outside the range"
    ),
    "a value that is no number": (
        "10+ years: 10,", "10+ years: ten,", "columns[5].values.10+ years", "write a number"
    ),
    "a missing value where none may be": (
        "values: {O: own, R: rent}", "values: {O: own, R: null}", "columns[6].values.R",
        "add nulls: allowed",
    ),
    "a value that is no category": (
        "values: {O: own, R: rent}", "values: {O: own, R: hire}", "columns[6].values.R",
        "none of the categories",
    ),
    "a value YAML takes for something else": (
        "values: {O: own, R: rent}", "values: {O: own, R: yes}", "columns[6].values.R",
        "put it in quotes",
    ),
    "a word with a blank at its end": (
        "values: {O: own, R: rent}", "values: {O: own, 'R ': rent}", "columns[6].values",
        "'R ' is empty or has a blank",
    ),
    "a category with a blank at its end": (
        "categories: [own, rent], values: {O: own, R: rent}", "categories: [own, 'rent ']",
        "columns[6].categories", "has a blank at an end",
    ),
    "a key in a notation": (
        "type: text, role: key", "type: text, role: key, values: {a: b}", "columns[0].values",
        "a key is kept as it is",
    ),
    "an outcome read as a number": (
        "name: status, type: category, categories: [paid, charged off]",
        "name: status, type: integer, remove: [x]", "columns[8].remove", "compared as text",
    ),
    "an input nobody reads": (
        "wedding: {sql: \"CASE WHEN lower(purpose) LIKE '%wedding%' THEN 1 ELSE 0 END\"}",
        "wedding: {sql: rate}", "columns[7].role", "nobody reads purpose",
    ),
    "a leak accepted where nothing is used": (
        "name: id, type: text", "name: id, leak_accepted: why not, type: text",
        "columns[0].leak_accepted", "reaches no model",
    ),
    "a leak accepted for no reason": (
        'remove: ["%"]', 'leak_accepted: " "', "columns[3].leak_accepted", "say why"
    ),
    "an ignored column that is listed": (
        "[last_payment, recoveries]", "[last_payment, rate]", "ignored[0].columns[1]",
        "listed under columns: or ignored: already",
    ),
    "an ignored column twice": (
        "[last_payment, recoveries]", "[last_payment, Last_payment]", "ignored[0].columns[1]",
        "already",
    ),
    "an end before the start": (
        "end: 2009-12-01", "end: 2009-10-01", "time.end", "before the book starts"
    ),
    "an end within a month": ("end: 2009-12-01", "end: 2009-12-31", "time.end", "write 2009-12-01"),
    "a source of neither kind": (
        "source: {path: club_loans.csv}", "source: {delimiter: ;}", "source", "give either path:"
    ),
    "a password": (
        "source: {path: club_loans.csv}",
        "source: {url: 'postgresql://loans:hunter2@db/loans', table: loans}",
        "source.url", "write ${NAME}",
    ),
    "a database in another encoding": (
        "source: {path: club_loans.csv}",
        "source: {url: '${LOANS}', table: loans, encoding: latin-1}",
        "source.encoding", "remove it",
    ),
    "a quote between values": (
        "source: {path: club_loans.csv}", "source: {path: club_loans.csv, delimiter: '\"'}",
        "source.delimiter", "separates no values",
    ),
    "reports without a table": (
        "matures_after_days: 30}", "matures_after_days: 30, reports: {url: 'postgresql://h/d'}}",
        "outcome.reports.url", "give either table: or query:",
    ),
    "reports a file a month": (
        "matures_after_days: 30}", "matures_after_days: 30, reports: {path: 'o/{partition}.csv'}}",
        "outcome.reports.path", "not one a month",
    ),
    "an outcome with a blank at its end": (
        "bad: [charged off]", "bad: [charged off, 'late ']", "outcome.bad", "a blank at an end"
    ),
    "dates subtracted": (
        "date_diff('day', \\\"earliest line\\\", issue_d)", "issue_d - \\\"earliest line\\\"",
        "features.history_days.sql", "write date_diff('day', \"earliest line\", issue_d)",
    ),
    "months between dates": (
        "date_diff('day', \\\"earliest", "date_diff('month', \\\"earliest",
        "features.history_days.sql", "use date_diff('day', a, b)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CLUB_PROBLEM)
def test_what_is_wrong_with_a_books_notation_is_told_once(case: str, tmp_path: Path):
    old, new, place, words = CLUB_PROBLEM[case]
    assert CLUB_YAML.count(old) == 1, "the test changes one place"
    text = CLUB_YAML.replace(old, new)
    (told,) = problems(tmp_path, text)
    assert f": {place}: " in told
    assert words in told


def test_a_key_written_twice_is_told_with_both_its_lines(tmp_path: Path):
    """YAML keeps the second and says nothing: the first range would be gone."""
    text = CLUB_YAML.replace("range: [0, 40]", "range: [0, 40], type: integer")
    line = text[: text.index("name: rate")].count("\n") + 1
    twice = f"defs.yaml:{line}: columns[3].type: is there twice, first on line {line}; keep one"
    assert problems(tmp_path, text) == [twice]
    (told,) = problems(tmp_path, CLUB_YAML + "  title: Another\n")
    assert "title: is there twice, first on line 3" in told


def test_a_time_column_read_by_a_feature_has_a_name_of_its_own(tmp_path: Path):
    sql = "date_diff('day', DATE '2020-01-01', applied_at)"
    (told,) = problems(tmp_path, changed('ln("loan amount")', f'"{sql}"'))
    assert ": columns[1].name: a feature reads applied_at, which is a name the platform" in told


SIMULATION = """\
  simulation:
    rows: 200
    bad_rate: 0.2
    probabilities: [0, 1]
    columns:
      earliest line: {sql: "DATE '2000-01-01'"}
      rate: {good: [1, 9], bad: [1, 9], rank_with: {amount: 0.2}}
      amount: {good: [1, 9], bad: [1, 9]}
      years: {good: [1, 9], bad: [1, 9]}
      home: {good: {own: 1}, bad: {rent: 1}}
      purpose: {good: {a car: 1}, bad: {a boat: 1}}
"""


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("{amount: 0.2}", "{amonut: 0.2}", "rate.rank_with.amonut", "did you mean amount?"),
        ("{amount: 0.2}", "{earliest line: 0.2}", "rate.rank_with.earliest line", "has no rank"),
        ("{amount: 0.2}", "{rate: 0.2}", "rate.rank_with.rate", "has no rank"),
        ("{sql: \"DATE '2000-01-01'\"}", "{good: [1], bad: [1]}", "earliest line.good", "sql:"),
        ("good: {own: 1}", "good: [1, 9]", "home.good", "has shares"),
        ("years: {good: [1, 9]", "years: {good: {a: 1}", "years.good", "a list of quantiles"),
        ("      purpose: {good: {a car: 1}, bad: {a boat: 1}}\n", "", "", "purpose has no figures"),
    ],
)  # fmt: skip
def test_figures_fit_their_columns(old: str, new: str, place: str, words: str, tmp_path: Path):
    assert read(tmp_path, CLUB_YAML + SIMULATION).simulation is not None
    told = problems(tmp_path, CLUB_YAML + SIMULATION.replace(old, new))
    where = "simulation.columns" + (f".{place}" if place else "")
    assert any(f": {where}: " in one and words in one for one in told)
