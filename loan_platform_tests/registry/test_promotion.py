from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from loan_platform.contract import Contract
from loan_platform.model.bundle import Bundle
from loan_platform.model.policy import Policy
from loan_platform.model.scorers.lightgbm import LightGBM
from loan_platform.registry.comparison import compare, measured_auc, measured_calibration_error
from loan_platform.registry.promotion import Case, Verdict, decide, judge
from loan_platform.training.rows import Rows, known_rows
from loan_platform.training.split import part
from loan_platform.training.train import Trained, train
from loan_platform_tests import home_loans
from loan_platform_tests.training.books import FEW_TREES, cleaned_table, raw_table, write_months
from loan_platform_tests.training.conftest import AS_OF

EARLY = dt.datetime(2024, 7, 1, tzinfo=dt.UTC)
CONTRACT = home_loans.contract()


def blinded(bundle: Bundle, months: dict[str, Path], as_of: dt.datetime, share: float) -> Bundle:
    """The same bundle with a booster that learnt from outcomes, a share of which was shuffled."""
    rows = known_rows(bundle.contract, months, as_of)
    rows = rows.where(part(rows) == "fit")
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
    return dataclasses.replace(bundle, scorer=LightGBM(booster.model_to_string()), record=record)


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
    assert refused.evidence["refused_by"] == ["floor"]
    assert "is 0.0010 below training.floor_auc" in refused.reasons[-1]


def test_a_first_champion_is_not_judged_on_a_handful_of_bad_loans(
    trained: Trained, months: dict[str, Path], tmp_path: Path
) -> None:
    table = pa.concat_tables([pq.read_table(file) for file in months.values()])
    rows = known_rows(CONTRACT, months, AS_OF)
    probability = trained.bundle.probability(rows.matrix)
    judged = part(rows) == "judge"
    bad = rows.application_id[judged & (rows.outcome == 1)]
    surest = bad[np.argsort(-probability[judged & (rows.outcome == 1)])[:29]]
    left_out = pc.is_in(table["application_id"], pa.array([*set(bad) - set(surest)]))
    files = write_months(table.filter(pc.invert(left_out)), tmp_path)
    verdict = judge(CONTRACT, trained.bundle, None, files, AS_OF)
    assert verdict.evidence["all"]["challenger_interval"][0] > CONTRACT.training.floor_auc
    assert not verdict.promote
    too_few = next(reason for reason in verdict.reasons if "29 bad" in reason)
    assert "at least 30 of each are needed" in too_few


def test_a_tie_is_refused(trained: Trained, months: dict[str, Path]) -> None:
    verdict = judge(CONTRACT, trained.bundle, trained.bundle, months, AS_OF)
    assert not verdict.promote
    assert verdict.evidence["all"]["auc_gain"] == [0, 0, 0]
    assert verdict.evidence["refused_by"] == ["gain"]
    assert "0.0000 and 0.0000 short of a gain" in verdict.reasons[-1]
    assert verdict.swap_set is not None
    assert verdict.swap_set.newly_approved.applications == 0
    assert verdict.swap_set.newly_declined.applications == 0


def test_better_is_promoted_and_worse_refused(trained: Trained, months: dict[str, Path]) -> None:
    weak = blinded(trained.bundle, months, AS_OF, share=0.9)
    up = judge(CONTRACT, trained.bundle, weak, months, AS_OF)
    assert up.promote, up.reasons
    assert up.evidence["deciding_rows"] == "all"  # nothing has become known since
    assert up.reasons[-1].startswith("promoted")
    down = judge(CONTRACT, weak, trained.bundle, months, AS_OF)
    assert not down.promote
    assert {"gain", "loss"} <= set(down.evidence["refused_by"])
    lost = down.evidence["all"]["auc_gain"][0]
    assert any(f"AUC is surely worse, by {-lost:.4f}" in reason for reason in down.reasons)
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
    champion = train(contract, shifted, EARLY, recipe=FEW_TREES).bundle
    challenger = train(contract, shifted, AS_OF, recipe=FEW_TREES).bundle
    verdict = judge(contract, challenger, champion, shifted, AS_OF)
    assert verdict.promote, verdict.reasons
    assert verdict.evidence["deciding_rows"] == "recent"
    assert verdict.evidence["recent"]["rows"] == verdict.evidence["recent_rows"] > 300
    assert "known since 2024-07-01, when the champion was trained" in verdict.reasons[0]

    # The other way round: yesterday's model does not displace the one that learnt the shift,
    # though it is better on all outcomes, which are most of them yesterday's.
    back = judge(contract, champion, challenger, shifted, AS_OF)
    assert "known since 2024-07-01, when the challenger was trained" in back.reasons[0]
    assert back.evidence["all"]["log_loss_gain"][1] > 0
    assert {"gain", "loss"} <= set(back.evidence["refused_by"])


def test_retraining_on_more_of_the_same_is_not_promoted_for_nothing(
    months: dict[str, Path],
) -> None:
    champion = train(CONTRACT, months, AS_OF, recipe=FEW_TREES).bundle
    other = CONTRACT.model_copy(
        update={"training": CONTRACT.training.model_copy(update={"seed": 8})}
    )
    challenger = train(other, months, AS_OF, recipe=FEW_TREES).bundle
    verdict = judge(CONTRACT, challenger, champion, months, AS_OF)
    assert not verdict.promote


def test_a_champion_of_another_contract_is_asked_with_its_own_matrix(
    trained: Trained, months: dict[str, Path]
) -> None:
    document = CONTRACT.model_dump(mode="json")
    document["features"].pop("burden")
    smaller = Contract.model_validate(document)
    champion = train(smaller, months, AS_OF, recipe=FEW_TREES).bundle
    verdict = judge(CONTRACT, trained.bundle, champion, months, AS_OF)
    reached = verdict.evidence["all"]["champion_auc"]
    assert reached == pytest.approx(champion.record.metrics["auc"])


def test_a_champion_of_another_maturity_answers_the_rows_of_today(tmp_path: Path) -> None:
    file = home_loans.write_csv(tmp_path / "home_loans.csv", home_loans.rows(4000, seed=3))
    sooner = CONTRACT.model_copy(
        update={"outcome": CONTRACT.outcome.model_copy(update={"matures_after_days": 10})}
    )
    as_of = dt.datetime(2024, 8, 1, tzinfo=dt.UTC)
    made = [
        (one, write_months(cleaned_table(one, file), tmp_path / str(number)))
        for number, one in enumerate((CONTRACT, sooner))
    ]
    models = [train(one, layer, as_of, recipe=FEW_TREES).bundle for one, layer in made]
    for (now, layer), challenger, champion in zip(made, models, models[::-1], strict=True):
        verdict = judge(now, challenger, champion, layer, as_of)
        known = known_rows(now, layer, as_of)
        rows = known.where(part(known) == "judge")
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
    champion = train(leaking, write_months(wider, tmp_path), AS_OF, recipe=FEW_TREES).bundle
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
    ours = ours.round(2)  # ties
    found = compare(outcome, ours, theirs)
    assert found.auc.challenger == pytest.approx(roc_auc_score(outcome, ours))
    assert found.auc.gain.value == pytest.approx(
        roc_auc_score(outcome, ours) - roc_auc_score(outcome, theirs)
    )
    assert found.log_loss.gain.value == pytest.approx(
        log_loss(outcome, theirs) - log_loss(outcome, ours)
    )
    random = np.random.default_rng(1)
    drawn = [random.integers(0, 1500, 1500) for _ in range(200)]
    reached = np.array([roc_auc_score(outcome[i], ours[i]) for i in drawn])
    gains = reached - [roc_auc_score(outcome[i], theirs[i]) for i in drawn]
    for measured, values in ((found.auc.gain, gains), (measured_auc(outcome, ours), reached)):
        width = measured.high - measured.low
        assert measured[1:] == pytest.approx(
            tuple(np.quantile(values, [0.025, 0.975])), abs=0.2 * width
        )


def test_the_gain_of_profit_is_paired_by_loan() -> None:
    outcome, ours, theirs = scorers(1500, seed=0, edge=0.3)
    money = np.where(outcome == 1, -500.0, 100.0)
    earned = money * (ours < 0.2), money * (theirs < 0.2)
    found = compare(outcome, ours, theirs, profit=earned).profit
    assert found is not None
    change = earned[0] - earned[1]
    assert found.challenger == pytest.approx(earned[0].mean())
    assert found.gain.value == pytest.approx(change.mean())
    # Of a mean the bootstrap interval is the normal one.
    reach = 1.96 * change.std() / np.sqrt(1500)
    assert found.gain.low == pytest.approx(change.mean() - reach, abs=0.15 * reach)
    assert found.gain.high == pytest.approx(change.mean() + reach, abs=0.15 * reach)


def test_noise_alone_is_no_calibration_error() -> None:
    """Few rows have a large error even of a perfect promise; its interval knows that."""
    surely, found = 0, []
    for seed in range(60):
        random = np.random.default_rng(seed)
        promised = random.beta(1, 4, 300)
        outcome = (random.random(300) < promised).astype(np.int64)
        one = measured_calibration_error(outcome, promised, count=200)
        found.append(one.value)
        surely += one.low > 0.05
    assert np.mean(found) > 0.045
    assert surely <= 3
    promised = np.random.default_rng(1).beta(1, 4, 3000)
    outcome = (np.random.default_rng(2).random(3000) < promised).astype(np.int64)
    apart = measured_calibration_error(outcome, np.minimum(promised + 0.1, 1))
    assert apart.low < 0.1 < apart.high
    assert apart.high - apart.low < 0.04


def a_case(
    bundle: Bundle,
    answers: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    contract: Contract | None = None,
    recent: float = 0.0,
    resamples: int = 200,
    sex: np.ndarray | None = None,
    policies: tuple[Policy, Policy] | None = None,
) -> Case:
    """Made-up answers of two models of `contract`, a share `recent` of them on later outcomes."""
    outcome, ours, theirs = answers
    count = len(outcome)
    contract = contract or home_loans.contract()
    champion = bundle.record.model_copy(update={"as_of": EARLY})
    known = np.where(np.arange(count) < recent * count, "2024-09-01", "2024-03-01")
    amounts = np.random.default_rng(count).lognormal(11.8, 0.5, count)
    policies = policies or (Policy.banded(0.3, 0.25, 0.35),) * 2
    rows = Rows(
        application_id=np.arange(count).astype(str).astype(object),
        month=np.full(count, "2024-01", dtype=object),
        applied_at=np.full(count, "2024-01-01", dtype="datetime64[us]"),
        known_at=known.astype("datetime64[us]"),
        outcome=outcome,
        matrix=np.zeros((count, len(contract.model_inputs))),
        beside={"loan amount": amounts, "sex": np.full(count, "f") if sex is None else sex},
        simulated=True,
    )
    return Case(
        contract,
        rows,
        dataclasses.replace(bundle, contract=contract, policy=policies[0]),
        ours,
        dataclasses.replace(bundle, contract=contract, policy=policies[1], record=champion),
        theirs,
        resamples=resamples,
    )


def with_profit(**changes: Any) -> Contract:
    terms = {"amount": "loan amount", "rate": 0.05, "loss_given_default": 0.6}
    return home_loans.contract(policy={"profit": terms}, **changes)


def without_a_protected_one() -> list[dict[str, Any]]:
    """The columns of the contract: fairness takes a seventh of a second a case."""
    columns = [column.model_dump() for column in CONTRACT.columns]
    return [c | ({"role": "ignored", "reason": "-"} if c["name"] == "sex" else {}) for c in columns]


@pytest.mark.parametrize("recent", [0.0, 0.5])
def test_of_200_pairs_of_equal_models_at_most_5_in_100_are_promoted(
    trained: Trained, recent: float
) -> None:
    """The whole decision, with profit and calibration; every guard can only make it rarer."""
    contract = with_profit(columns=without_a_protected_one(), rules=[])

    def verdicts(rows: int, times: int, edge: float) -> list[Verdict]:
        made = (scorers(rows, seed, edge) for seed in range(times))
        return [
            decide(a_case(trained.bundle, one, contract=contract, recent=recent)) for one in made
        ]

    equal = verdicts(620, 200, edge=0)
    assert {one.evidence["deciding_rows"] for one in equal} == {"recent" if recent else "all"}
    assert sum(one.promote for one in equal) <= 10
    # And not because nothing ever is.
    assert sum(one.promote for one in verdicts(2500, 12, edge=0.9)) >= 9


def test_a_challenger_that_earns_less_is_refused_unless_the_policy_was_changed(
    trained: Trained,
) -> None:
    """Better ranked, and with a threshold that turns good business away."""
    strict = Policy.banded(0.01, 0.005, 0.02), Policy.banded(0.1, 0.08, 0.12)
    contract = with_profit()
    answers = scorers(3000, 1, edge=1)
    case = a_case(trained.bundle, answers, contract=contract, policies=strict)
    verdict = decide(case)
    assert verdict.evidence["refused_by"] == ["loss"]
    gain, _, high = verdict.evidence["all"]["profit_gain"]
    assert high < 0
    assert f"profit is surely worse, by {-gain:.4f}" in verdict.reasons[-1]

    assert case.champion is not None
    before = dataclasses.replace(case.champion, contract=home_loans.contract())
    changed = decide(dataclasses.replace(case, champion=before))
    assert changed.promote
    assert changed.evidence["all"]["profit_gain"] == verdict.evidence["all"]["profit_gain"]
    assert any("policy was changed" in reason for reason in changed.reasons)


def test_a_challenger_that_promises_the_wrong_rates_is_refused_unless_its_champion_does_so_more(
    trained: Trained,
) -> None:
    outcome, ours, _ = scorers(3000, 1, edge=1)
    random = np.random.default_rng(3)
    weak = np.clip(outcome.mean() + random.normal(0, 0.02, 3000), 0.01, 0.99)
    case = a_case(trained.bundle, (outcome, ours, weak))
    assert decide(case).promote
    off = dataclasses.replace(case, probability=ours * 0.6)
    verdict = decide(off)
    assert verdict.evidence["refused_by"] == ["calibration"]
    error, low, _ = verdict.evidence["calibration_error"]
    assert error == pytest.approx(0.4 * ours.mean(), rel=0.2)
    assert f"by {low - 0.05:.4f} or more" in verdict.reasons[-1]
    alone = decide(dataclasses.replace(off, champion=None, rival=None), "there is no champion yet")
    assert alone.evidence["refused_by"] == ["calibration"]

    mends = decide(dataclasses.replace(off, rival=weak * 0.3))
    assert mends.promote
    assert any("the champion's are" in reason for reason in mends.reasons)


def of_two_groups(approved: float, before: float | None) -> Callable[[Bundle], Verdict]:
    """The verdict on a better model that approves half of f, and `approved` of that of m."""
    outcome, ours, theirs = scorers(4000, 2, edge=0.6)
    sex = np.array(["f", "m"], dtype=object)[np.arange(4000) % 2]
    contract = home_loans.contract(promotion={"maximum_calibration_error": 1})

    def pushed(answers: np.ndarray, share: float) -> np.ndarray:
        answers = answers.copy()
        for group, rate in (("f", 0.5), ("m", 0.5 * share)):
            mine = sex == group
            edge = np.quantile(answers[mine], rate)
            above = mine & (answers >= edge)
            answers[above] = np.maximum(answers[above], 0.31)
            answers[mine & ~above] = np.minimum(answers[mine & ~above], 0.24)
        return answers

    def judged(bundle: Bundle) -> Verdict:
        policies = (Policy.banded(0.3, 0.25, 0.3),) * 2
        answers = outcome, pushed(ours, approved), pushed(theirs, before or 1.0)
        case = a_case(bundle, answers, contract=contract, sex=sex, policies=policies)
        if before is None:
            alone = dataclasses.replace(case, champion=None, rival=None)
            return decide(alone, "there is no champion yet")
        return decide(case)

    return judged


def test_an_unfair_challenger_is_refused_unless_its_champion_is_no_fairer(
    trained: Trained,
) -> None:
    for before in (1.0, None):
        verdict = of_two_groups(0.6, before)(trained.bundle)
        assert verdict.evidence["refused_by"] == ["fairness"]
        assert "the group 'm' is approved 0.600 times as often as 'f'" in verdict.reasons[-1]
    mends = of_two_groups(0.6, 0.4)(trained.bundle)
    assert mends.promote
    assert any("the champion treats this group no better" in one for one in mends.reasons)
    assert of_two_groups(0.6, 0.7)(trained.bundle).evidence["refused_by"] == ["fairness"]
    assert of_two_groups(0.9, 0.4)(trained.bundle).promote


def test_groups_are_read_from_the_raw_layer(
    trained: Trained, months: dict[str, Path], tmp_path: Path
) -> None:
    file = home_loans.write_csv(tmp_path / "home_loans.csv", home_loans.rows(3000))
    raw = write_months(raw_table(CONTRACT, file, simulated=True), tmp_path / "raw")
    verdict = judge(CONTRACT, trained.bundle, None, months, AS_OF, raw=raw)
    rows = known_rows(CONTRACT, months, AS_OF, raw=raw)
    rows = rows.where(part(rows) == "judge")
    approved = trained.bundle.policy.decide(trained.bundle.probability(rows.matrix)) == "approve"
    rates = {name: approved[rows.beside["sex"] == name].mean() for name in ("f", "m")}
    found = {one["group"]: one["ratio"] for one in verdict.evidence["fairness"]}
    best = max(rates.values())
    assert found == pytest.approx({name: rate / best for name, rate in rates.items()})


def test_a_lost_champion_is_replaced_by_what_reaches_the_floor_and_it_is_said(
    trained: Trained, months: dict[str, Path]
) -> None:
    lost = "THE CHAMPION IS LOST: version 3 cannot be loaded"
    verdict = judge(CONTRACT, trained.bundle, None, months, AS_OF, lost=lost)
    assert verdict.promote
    assert verdict.reasons[0].startswith(f"{lost}, so only the floor counts")
    assert verdict.evidence["no_champion"] == lost
    strict = judge(with_floor(0.95), trained.bundle, None, months, AS_OF, lost=lost)
    assert strict.evidence["refused_by"] == ["floor"]
