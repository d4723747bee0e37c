"""What a contract says of itself: its inputs, its hash, and what it hides from a model."""

import pytest

from loan_platform.contract import Contract
from loan_platform_tests import club_loans, home_loans


@pytest.fixture(scope="module")
def contract() -> Contract:
    return home_loans.contract()


def test_only_features_reach_the_model_in_the_order_of_the_contract(contract: Contract):
    assert contract.model_inputs == [
        "loan amount",
        "debt-ratio",
        "order",
        "years_in_job",
        "reason",
        "burden",
        "log_amount",
    ]
    assert contract.monotone_directions == [0, 1, 0, 0, 0, 0, -1]
    assert contract.categorical_inputs == {
        "reason": ["purchase", "parent's home", 'a "second" home']
    }


def test_the_hash_says_what_a_row_means(contract: Contract):
    assert len(contract.contract_hash) == 12
    assert home_loans.contract().contract_hash == contract.contract_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"freshness": {"warn_after_days": 3, "fail_after_days": 4}},
        {"retrain": {"cooldown_minutes": 5}},
        {"title": "Another title"},
        {"owners": ["team:other"]},
        {"source": {"path": "moved.csv"}},
        {"time": {"start": "2024-01-01", "end": "2024-08-01"}},
        {
            "rules": [
                rule.model_dump() | {"reason": "other words"}
                for rule in home_loans.contract().rules
            ]
        },
        {
            "columns": [
                column.model_dump() | {"description": "words", "unit": "EUR"}
                for column in home_loans.contract().columns
            ]
        },
        {"ignored": [{"reason": "not asked for", "columns": ["zip"]}]},
    ],
)
def test_the_hash_stays_where_the_meaning_does(contract: Contract, changes: dict[str, object]):
    assert home_loans.contract(**changes).contract_hash == contract.contract_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"rules": []},
        {"features": {"burden": {"sql": '"debt-ratio" + 1'}}},
        {"duplicates": "keep"},
        {"outcome": {"bad": ["defaulted"], "good": ["paid"], "matures_after_days": 45}},
        {"time": {"start": "2023-01-01"}},
    ],
)
def test_the_hash_moves_with_the_meaning(contract: Contract, changes: dict[str, object]):
    assert home_loans.contract(**changes).contract_hash != contract.contract_hash


def test_credit_risk_keeps_the_lenders_own_decisions_from_the_model(credit_risk: Contract):
    ignored = {column.name: column.reason for column in credit_risk.with_role("ignored")}
    assert {"loan_grade", "loan_int_rate"} <= set(ignored)
    assert not set(ignored) & set(credit_risk.model_inputs)
    assert "lender's own decision" in str(ignored["loan_grade"])


def test_an_application_carries_what_derived_features_read():
    """The model must not see a date, the service must ask for it, the day comes by itself."""
    contract = club_loans.contract()
    inputs = ["issue_d", "earliest line", "rate", "amount", "years", "home", "purpose"]
    assert [column.name for column in contract.input_columns] == inputs
    assert [column.name for column in contract.request_columns] == inputs[1:]
    assert contract.model_inputs == [*inputs[2:6], "history_days", "wedding", "amount_rate"]
    unread = club_loans.contract(features={"wedding": {"sql": "length(purpose)"}})
    assert "issue_d" not in [column.name for column in unread.input_columns]
    assert contract.ignored_columns == dict.fromkeys(
        ("last_payment", "recoveries"), "known only afterwards"
    )


def test_how_a_book_is_written_is_part_of_what_a_row_means():
    before = club_loans.contract()
    document = before.model_dump(mode="json", exclude_none=True)
    document["columns"][4]["decimal"] = "."
    assert Contract.model_validate(document).contract_hash != before.contract_hash
