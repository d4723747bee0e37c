"""A bad contract is told with file, line, place, what is wrong and what mends it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from loan_platform.contract import Contract, ContractError, read_contract
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
        "has no Spark equivalent",
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
