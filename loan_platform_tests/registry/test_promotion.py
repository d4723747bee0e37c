from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from loan_platform.contract import Contract
from loan_platform.model.bundle import Bundle
from loan_platform.registry.promotion import Comparison, compare, judge
from loan_platform.training.rows import known_rows
from loan_platform.training.split import part
from loan_platform.training.train import Trained, train
from loan_platform_tests import home_loans
from loan_platform_tests.training.books import cleaned_table, write_months
from loan_platform_tests.training.conftest import AS_OF

EARLY = dt.datetime(2024, 7, 1, tzinfo=dt.UTC)
CONTRACT = home_loans.contract()


def blinded(bundle: Bundle, months: dict[str, Path], as_of: dt.datetime, share: float) -> Bundle:
    """The same bundle with a booster that learnt from outcomes, a share of which was shuffled."""
    rows = known_rows(bundle.contract, months, as_of)
    rows = rows.where(part(rows.application_id) == "fit")
    random = np.random.default_rng(1)
    outcome = rows.outcome.copy()
    mixed = random.random(len(rows)) < share
    outcome[mixed] = random.permutation(outcome[mixed])
    booster = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_leaves": 7, "num_threads": 1, "seed": 1},
        lightgbm.Dataset(rows.matrix, outcome),
        30,
    )
    record = bundle.record.model_copy(update={"as_of": as_of})
    return dataclasses.replace(bundle, booster_text=booster.model_to_string(), record=record)


def with_floor(floor: float) -> Contract:
    training = CONTRACT.training.model_copy(update={"floor_auc": floor})
    return CONTRACT.model_copy(update={"training": training})


def test_a_first_champion_has_to_pass_the_floor_surely(
    trained: Trained, months: dict[str, Path]
) -> None:
    verdict = judge(CONTRACT, trained.bundle, None, months, AS_OF)
    assert verdict.promote
    assert "there is no champion yet, so only the floor counts" in verdict.reasons[0]
    assert verdict.evidence["all"]["challenger_auc"] == pytest.approx(
        trained.bundle.record.metrics["auc"]
    )
    low, high = verdict.evidence["all"]["challenger_interval"]
    assert low < verdict.evidence["all"]["challenger_auc"] < high
    assert judge(with_floor(low), trained.bundle, None, months, AS_OF).promote
    refused = judge(with_floor(low + 0.001), trained.bundle, None, months, AS_OF)
    assert not refused.promote
    assert "does not surely reach the floor" in refused.reasons[0]


def test_a_first_champion_is_not_judged_on_a_handful_of_bad_loans(
    trained: Trained, months: dict[str, Path], tmp_path: Path
) -> None:
    table = pa.concat_tables([pq.read_table(file) for file in months.values()])
    rows = known_rows(CONTRACT, months, AS_OF)
    probability = trained.bundle.probability(rows.matrix)
    judged = part(rows.application_id) == "judge"
    bad = rows.application_id[judged & (rows.outcome == 1)]
    surest = bad[np.argsort(-probability[judged & (rows.outcome == 1)])[:29]]
    left_out = pc.is_in(table["application_id"], pa.array([*set(bad) - set(surest)]))
    files = write_months(table.filter(pc.invert(left_out)), tmp_path)
    verdict = judge(CONTRACT, trained.bundle, None, files, AS_OF)
    assert verdict.evidence["all"]["challenger_interval"][0] > CONTRACT.training.floor_auc
    assert not verdict.promote
    assert "29 bad" in verdict.reasons[-1]
    assert "at least 30 of each are needed" in verdict.reasons[-1]


def test_a_tie_is_refused(trained: Trained, months: dict[str, Path]) -> None:
    verdict = judge(CONTRACT, trained.bundle, trained.bundle, months, AS_OF)
    assert not verdict.promote
    assert verdict.evidence["all"]["auc_gain"] == [0, 0, 0]
    assert "neither gain is above 0 with its whole interval" in verdict.reasons[-1]


def test_better_is_promoted_and_worse_refused(trained: Trained, months: dict[str, Path]) -> None:
    weak = blinded(trained.bundle, months, AS_OF, share=0.9)
    up = judge(CONTRACT, trained.bundle, weak, months, AS_OF)
    assert up.promote, up.reasons
    assert up.evidence["deciding_rows"] == "all"  # nothing has become known since
    assert up.reasons[-1].startswith("promoted")
    down = judge(CONTRACT, weak, trained.bundle, months, AS_OF)
    assert not down.promote
    assert "below 0 with its whole interval" in down.reasons[-1]
    assert down.evidence["all"]["auc_gain"][0] == pytest.approx(-up.evidence["all"]["auc_gain"][0])


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """12,000 loans; from June on, what a high debt ratio meant is turned around for liens 1, 2."""
    folder = tmp_path_factory.mktemp("shifted")
    loans = home_loans.rows(12_000, seed=5)
    random = np.random.default_rng(2)
    for loan in loans:
        if loan["applied_at"] >= "2024-06" and loan["order"] in "12":
            chance = 1 / (1 + np.exp(-1.5 + 3.0 * float(loan["debt-ratio"])))
            loan["outcome"] = "defaulted" if random.random() < chance else "paid"
    file = home_loans.write_csv(folder / "home_loans.csv", loans)
    free = home_loans.contract()
    return write_months(cleaned_table(free, file), folder / "cleaned")


def free_of_directions() -> Contract:
    document = CONTRACT.model_dump(mode="json")
    for described in [*document["columns"], *document["features"].values()]:
        described["monotone"] = None
    return Contract.model_validate(document)


def test_a_challenger_that_learnt_a_shift_is_promoted_on_the_outcomes_since(
    shifted: dict[str, Path],
) -> None:
    contract = free_of_directions()
    champion = train(contract, shifted, EARLY).bundle
    challenger = train(contract, shifted, AS_OF).bundle
    verdict = judge(contract, challenger, champion, shifted, AS_OF)
    assert verdict.promote, verdict.reasons
    assert verdict.evidence["deciding_rows"] == "recent"
    assert verdict.evidence["recent"]["rows"] == verdict.evidence["recent_rows"] > 300
    assert "outcomes since the champion was trained" in verdict.reasons[0]

    # The other way round: yesterday's model does not displace the one that learnt the shift.
    back = judge(contract, champion, challenger, shifted, AS_OF)
    assert not back.promote


def test_retraining_on_more_of_the_same_is_not_promoted_for_nothing(
    months: dict[str, Path],
) -> None:
    champion = train(CONTRACT, months, AS_OF).bundle
    other = CONTRACT.model_copy(
        update={"training": CONTRACT.training.model_copy(update={"seed": 8})}
    )
    challenger = train(other, months, AS_OF).bundle
    verdict = judge(CONTRACT, challenger, champion, months, AS_OF)
    assert not verdict.promote


def test_a_champion_of_another_contract_is_asked_with_its_own_matrix(
    trained: Trained, months: dict[str, Path]
) -> None:
    document = CONTRACT.model_dump(mode="json")
    document["features"].pop("burden")
    smaller = Contract.model_validate(document)
    champion = train(smaller, months, AS_OF).bundle
    verdict = judge(CONTRACT, trained.bundle, champion, months, AS_OF)
    reached = verdict.evidence["all"]["champion_auc"]
    assert reached == pytest.approx(champion.record.metrics["auc"])


def test_a_champion_of_another_maturity_answers_the_rows_of_today(tmp_path: Path) -> None:
    file = home_loans.write_csv(tmp_path / "home_loans.csv", home_loans.rows(4000, seed=3))
    sooner = CONTRACT.model_copy(
        update={"outcome": CONTRACT.outcome.model_copy(update={"matures_after_days": 10})}
    )
    as_of = dt.datetime(2024, 8, 1, tzinfo=dt.UTC)
    for before, now in ((CONTRACT, sooner), (sooner, CONTRACT)):
        made = [
            write_months(cleaned_table(one, file), tmp_path / str(one.outcome.matures_after_days))
            for one in (before, now)
        ]
        champion = train(before, made[0], as_of).bundle
        challenger = train(now, made[1], as_of).bundle
        verdict = judge(now, challenger, champion, made[1], as_of)
        known = known_rows(now, made[1], as_of)
        rows = known.where(part(known.application_id) == "judge")
        found = verdict.evidence["all"]
        assert found["rows"] == len(rows)
        for name, bundle in (("challenger", challenger), ("champion", champion)):
            reached = roc_auc_score(rows.outcome, bundle.probability(rows.matrix))
            assert found[f"{name}_auc"] == pytest.approx(reached)


def of_a_book(bundle: Bundle, simulated: bool) -> Bundle:
    record = bundle.record.model_copy(update={"simulated": simulated})
    return dataclasses.replace(bundle, record=record)


def test_a_model_of_a_simulated_book_yields_to_one_of_a_real_book_and_never_displaces_it(
    trained: Trained, months: dict[str, Path]
) -> None:
    weak = blinded(trained.bundle, months, AS_OF, share=0.9)
    drawn, real = of_a_book(trained.bundle, True), of_a_book(weak, False)
    down = judge(CONTRACT, drawn, real, months, AS_OF)
    assert not down.promote
    assert "learnt from a simulated book, and the champion from a real one" in down.reasons[0]
    equal = of_a_book(trained.bundle, False)
    up = judge(CONTRACT, equal, drawn, months, AS_OF)
    assert up.promote
    assert "the champion learnt from a simulated book, so only the floor" in up.reasons[0]


def test_a_champion_that_needs_a_column_no_longer_there_yields_to_the_floor(
    trained: Trained, months: dict[str, Path], tmp_path: Path
) -> None:
    table = pa.concat_tables([pq.read_table(file) for file in months.values()])
    wider = table.append_column("leak", table["outcome"].cast(pa.float64()))
    document = CONTRACT.model_dump(mode="json")
    document["columns"].append(
        {"name": "leak", "type": "number", "leak_accepted": "this test needs a strong champion"}
    )
    leaking = Contract.model_validate(document)
    champion = train(leaking, write_months(wider, tmp_path), AS_OF).bundle
    verdict = judge(CONTRACT, trained.bundle, champion, months, AS_OF)
    assert verdict.promote
    assert "the champion needs leak, which the contract no longer has" in verdict.reasons[0]


def test_a_challenger_of_another_contract_is_refused(
    trained: Trained, months: dict[str, Path]
) -> None:
    verdict = judge(free_of_directions(), trained.bundle, None, months, AS_OF)
    assert not verdict.promote
    assert "train again" in verdict.reasons[0]


def scorers(count: int, seed: int, edge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes, and two equally noisy guesses of the log-odds; `edge` takes noise off the first."""
    random = np.random.default_rng(seed)
    truth = random.normal(-1.5, 1.5, count)
    outcome = (random.random(count) < 1 / (1 + np.exp(-truth))).astype(np.int64)
    guesses = [truth + random.normal(0, noise, count) for noise in (0.5 * (1 - edge), 0.5)]
    ours, theirs = (1 / (1 + np.exp(-guess)) for guess in guesses)
    return outcome, ours, theirs


def test_gains_are_the_differences_sklearn_gives() -> None:
    outcome, ours, theirs = scorers(1500, seed=0, edge=0.3)
    found = compare(outcome, ours, theirs)
    auc = roc_auc_score(outcome, ours) - roc_auc_score(outcome, theirs)
    assert found.auc_gain[0] == pytest.approx(auc)
    assert found.log_loss_gain[0] == pytest.approx(
        log_loss(outcome, theirs) - log_loss(outcome, ours)
    )
    random = np.random.default_rng(1)
    drawn = [random.integers(0, 1500, 1500) for _ in range(400)]
    gains = [
        roc_auc_score(outcome[i], ours[i]) - roc_auc_score(outcome[i], theirs[i]) for i in drawn
    ]
    low, high = np.quantile(gains, [0.025, 0.975])
    width = high - low
    assert found.auc_gain[1] == pytest.approx(low, abs=0.15 * width)
    assert found.auc_gain[2] == pytest.approx(high, abs=0.15 * width)


def promotions(rows: int, times: int, edge: float) -> int:
    return sum(
        compare(*scorers(rows, seed=1000 + n, edge=edge), seed=n, count=400).better
        for n in range(times)
    )


def test_equals_are_rarely_promoted_and_a_real_gain_mostly_is() -> None:
    # At most 5 % of 200 are expected; 20 or more would have a chance below 1 in 300.
    assert promotions(rows=400, times=200, edge=0) < 20
    assert promotions(rows=1500, times=40, edge=0.6) > 32


@pytest.mark.parametrize(
    ("auc_gain", "log_loss_gain", "better"),
    [
        ((0.01, 0.001, 0.02), (0.0, -0.01, 0.01), True),
        ((0.0, -0.01, 0.01), (0.01, 0.001, 0.02), True),
        ((0.01, 0.001, 0.02), (-0.02, -0.03, -0.01), False),
        ((0.01, -0.001, 0.02), (0.01, -0.001, 0.02), False),
    ],
)
def test_one_sure_gain_is_enough_unless_the_other_is_surely_lost(
    auc_gain: tuple[float, float, float],
    log_loss_gain: tuple[float, float, float],
    better: bool,
) -> None:
    assert Comparison(500, 0.8, 0.8, auc_gain, log_loss_gain).better is better
