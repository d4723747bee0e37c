"""How good a model is, on rows that nothing about it was fitted, tuned or thresholded on.

Every interval of a metric is a bootstrap over the rows, one set of resamples for all metrics; the
interval of the AUC of a slice is DeLong's. Here: the measures and their intervals. Not here:
comparing two models (`registry.promotion`), groups of people (`fairness`), pictures (`pictures`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from loan_platform.contract import Contract
from loan_platform.model.policy import DECISIONS, Policy
from loan_platform.training.fairness import LEAST_SHOWN, Attribute, compare_groups, grouped
from loan_platform.training.profit import profit_if_approved
from loan_platform.training.rows import Rows

RESAMPLES = 1000
CALIBRATION_BINS = 10
# Fewer resamples of larger books, where the intervals are narrow: 150,000 rows get 200.
_DRAWN_AT_MOST, _RESAMPLES_AT_LEAST = 30_000_000, 200
_HELD = 250_000  # counts held at once, 2 MB of them: what a core keeps close
# To a resample so many neighbouring scores are different ones; the rest are ties. That moves the
# ends of an AUC's interval by a thousandth of its width, those of the PR-AUC's by two hundredths,
# and saves three quarters of the time.
_SCORES_TOLD_APART = 2000
# With fewer, the variance of an AUC cannot be told.
LEAST_OF_A_CLASS = 5


@dataclass(frozen=True)
class Slice:
    """How the model did on a month, or on one value of a segment's column.

    `promised` is the mean probability of default. `auc` is None where only one outcome is there,
    its interval also where there are too few of one.
    """

    name: str
    rows: int
    bad_rate: float
    promised: float
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    log_loss: float
    approved_share: float


@dataclass(frozen=True)
class Evaluation:
    """Measures of one model on its judging rows, with the rows' outcomes and probabilities.

    `metrics`: auc, gini, ks, pr_auc, log_loss, brier, calibration_error, bad_rate; at the threshold
    accuracy, precision, recall, specificity, f1; of the decisions approve_share, refer_share,
    decline_share, bad_rate_approved; each with NAME_low and NAME_high. Besides rows, threshold and
    the confusion counts. Shares, rates and probabilities are in 0..1. Where the contract has terms
    of profit: profit_per_loan, what the policy's approvals earn for each application, and
    profit_per_loan_all, what approving everybody would, in the book's money.
    """

    outcome: np.ndarray
    probability: np.ndarray
    policy: Policy
    metrics: dict[str, float]
    by_month: list[Slice] = field(default_factory=list)
    by_segment: dict[str, list[Slice]] = field(default_factory=dict)
    fairness: list[Attribute] = field(default_factory=list)


def evaluate_rows(
    contract: Contract, rows: Rows, probability: np.ndarray, policy: Policy
) -> Evaluation:
    """Measure the probabilities of `rows`, shape (n,), over all, by month, segment and group."""
    settings = contract.training
    whole = evaluate(
        rows.outcome,
        probability,
        policy,
        profit=profit_if_approved(contract, rows),
        confidence=settings.confidence,
        seed=settings.seed,
    )
    months = sorted(set(rows.month))

    def slices(names: list[str], codes: np.ndarray) -> list[Slice]:
        chosen = ((name, codes == code) for code, name in enumerate(names))
        return [
            _slice(name, rows.outcome[at], probability[at], policy, settings.confidence)
            for name, at in chosen
            if at.sum() >= LEAST_SHOWN
        ]

    return Evaluation(
        rows.outcome,
        probability,
        policy,
        whole.metrics,
        by_month=slices(months, np.searchsorted(np.array(months, dtype=object), rows.month)),
        by_segment={
            name: slices(*grouped(contract.column(name), rows.beside[name]))
            for name in contract.segments
        },
        fairness=compare_groups(
            contract,
            rows,
            probability,
            policy,
            confidence=settings.confidence,
            seed=settings.seed,
        ),
    )


def evaluate(
    outcome: np.ndarray,
    probability: np.ndarray,
    policy: Policy,
    *,
    profit: np.ndarray | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Measure probabilities against outcomes (1 bad, 0 good), both of shape (n,), n > 1.

    Both classes must be there. `profit`: what each loan earns if it is approved. The intervals are
    percentiles of a bootstrap over rows. Noise makes distances: it alone gives a perfect promise a
    calibration error above 0, and its resamples a larger one. So the lower end of that interval is
    the error less what noise reaches, which is no lower than it should be by the triangle
    inequality. KS is inflated likewise, and its interval mirrored at the estimate ("basic
    bootstrap", A. Davison, D. Hinkley, "Bootstrap Methods and their Application", 1997, 5.2).
    """
    ranked = _Ranked.of(outcome, probability, policy, profit)
    count = max(_RESAMPLES_AT_LEAST, min(RESAMPLES, _DRAWN_AT_MOST // len(outcome)))
    once, every = np.ones((1, len(outcome))), len(ranked.starts)
    found = {name: float(value[0]) for name, value in ranked.measure(once, every)}
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in found}
    for counts in resamples(len(outcome), count, seed):
        for name, part in ranked.measure(counts, _SCORES_TOLD_APART):
            drawn[name].append(part)
    values = {name: np.concatenate(parts) for name, parts in drawn.items()}
    noise = values.pop("calibration_noise")
    label = policy.label(probability)
    metrics = {
        "rows": float(len(outcome)),
        "threshold": policy.threshold,
        "true_positives": float((label & outcome).sum()),
        "false_negatives": float(((1 - label) & outcome).sum()),
        "false_positives": float((label & (1 - outcome)).sum()),
        "true_negatives": float(((1 - label) & (1 - outcome)).sum()),
    }
    for name, of_resamples in values.items():
        value, (low, high) = found[name], interval(of_resamples, confidence)
        if name == "ks":
            low, high = 2 * value - high, 2 * value - low
        if name == "calibration_error":
            low = max(0.0, value - interval(noise, confidence)[1])
        metrics |= {name: value, f"{name}_low": min(low, value), f"{name}_high": max(high, value)}
    return Evaluation(outcome, probability, policy, metrics)


@dataclass(frozen=True)
class _Ranked:
    """Rows in the order of their probability; `sums` (n, m) is what each adds to sums of metrics.

    `starts`: where a new probability begins, so that equal ones are told apart by nobody.
    """

    outcome: np.ndarray
    promised: np.ndarray
    starts: np.ndarray
    summed: list[str]
    sums: np.ndarray

    @classmethod
    def of(
        cls, outcome: np.ndarray, probability: np.ndarray, policy: Policy, profit: np.ndarray | None
    ) -> _Ranked:
        order = np.argsort(probability, kind="stable")
        bad, score = outcome[order].astype(np.float64), probability[order]
        label, decision = policy.label(score), policy.decide(score)
        approved = decision == "approve"
        sums = {
            "log_loss": log_losses(outcome[order], score),
            "brier": (score - bad) ** 2,
            "bad_rate": bad,
            "flagged": label,
            "hit": label * bad,
            **{f"{name}_share": decision == name for name in DECISIONS},
            "bad_approved": bad * approved,
        }
        if profit is not None:
            sums["profit_per_loan"] = profit[order] * approved
            sums["profit_per_loan_all"] = profit[order]
        columns = [side.astype(np.float64) for side in sums.values()]
        return cls(bad, score, _starts(score), list(sums), np.column_stack(columns))

    def measure(self, ranked: np.ndarray, told_apart: int) -> Iterator[tuple[str, np.ndarray]]:
        """Every metric under each row of `ranked`, weights of shape (b, n), as shape (b,).

        AUC, KS and PR-AUC see at most `told_apart` different scores. They are NaN where a row of
        weights leaves only one class.
        """
        starts = self.starts[:: -(-len(self.starts) // told_apart)]
        total = ranked.sum(axis=1)
        mean = dict(zip(self.summed, (ranked @ self.sums).T / total, strict=True))
        flagged, hit, bad = mean.pop("flagged"), mean.pop("hit"), mean["bad_rate"]
        bad_approved = mean.pop("bad_approved")
        area, apart, precision = _curves(ranked, self.outcome, starts)
        yield from (("auc", area), ("gini", 2 * area - 1), ("ks", apart), ("pr_auc", precision))
        yield from mean.items()
        gaps = self._gaps(ranked) / total
        here = self._gaps(np.ones((1, len(self.outcome)))) / len(self.outcome)
        yield "calibration_error", np.abs(gaps).sum(axis=0)
        yield "calibration_noise", np.abs(gaps - here).sum(axis=0)
        yield "accuracy", 1 - flagged - bad + 2 * hit
        yield "precision", _ratio(hit, flagged)
        yield "recall", _ratio(hit, bad)
        yield "specificity", _ratio(1 - flagged - bad + hit, 1 - bad)
        yield "f1", _ratio(2 * hit, flagged + bad)
        yield "bad_rate_approved", _ratio(bad_approved, mean["approve_share"])

    def _gaps(self, ranked: np.ndarray) -> np.ndarray:
        """Promised less observed bad loans in every tenth of the scores, (tenths, b)."""
        gap = self.promised - self.outcome
        return np.stack([ranked[:, i] @ gap[i] for i in _tenths(len(gap))])


def _slice(
    name: str, outcome: np.ndarray, probability: np.ndarray, policy: Policy, confidence: float
) -> Slice:
    reached, low, high = auc_of_few(outcome, probability, confidence)
    return Slice(
        name=name,
        rows=len(outcome),
        bad_rate=float(outcome.mean()),
        promised=float(probability.mean()),
        auc=reached,
        auc_low=low,
        auc_high=high,
        log_loss=float(log_losses(outcome, probability).mean()),
        approved_share=float((policy.decide(probability) == "approve").mean()),
    )


def auc_of_few(
    outcome: np.ndarray, score: np.ndarray, confidence: float
) -> tuple[float | None, float | None, float | None]:
    """AUC with DeLong's interval, on the scale of log-odds so that it stays within 0 and 1.

    (E. R. DeLong and others, "Comparing the areas under two or more correlated receiver operating
    characteristic curves", 1988.) No interval for a perfect ranking, or with fewer than
    `LEAST_OF_A_CLASS` of an outcome; nothing at all where only one is there.
    """
    from scipy.stats import norm, rankdata

    bad, good = score[outcome == 1], score[outcome == 0]
    if not len(bad) or not len(good):
        return None, None, None
    ranks = rankdata(np.concatenate([bad, good]))
    above = (ranks[: len(bad)] - rankdata(bad)) / len(good)
    below = 1 - (ranks[len(bad) :] - rankdata(good)) / len(bad)
    area = float(above.mean())
    if min(len(bad), len(good)) < LEAST_OF_A_CLASS or not 0 < area < 1:
        return area, None, None
    variance = above.var(ddof=1) / len(bad) + below.var(ddof=1) / len(good)
    reach = norm.ppf((1 + confidence) / 2) * np.sqrt(variance) / (area * (1 - area))
    low, high = (1 / (1 + (1 - area) / area * np.exp(sign * reach)) for sign in (1, -1))
    return area, float(low), float(high)


def auc(outcome: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: P(a bad loan scores above a good one), ties counting half."""
    return float(weighted_auc(outcome, score, np.ones((1, len(outcome))))[0])


def weighted_auc(outcome: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC of the same rows under each row of `weights`, shape (b, n); gives shape (b,).

    NaN where a row of weights leaves only one class.
    """
    order = np.argsort(score, kind="stable")
    bad, good = _sides(weights[:, order], outcome[order], _starts(score[order]))
    return _area(bad, good, np.cumsum(good, axis=1))


def _curves(
    ranked: np.ndarray, outcome: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUC, Kolmogorov-Smirnov distance and mean precision over recall steps (PR-AUC), (b,) each.

    Of rows that lie in the order of their score, under each row of weights (b, n).
    """
    bad, good = _sides(ranked, outcome, starts)
    bad_below, good_below = np.cumsum(bad, axis=1), np.cumsum(good, axis=1)
    area = _area(bad, good, good_below)
    all_bad, all_good = bad_below[:, -1:], good_below[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.abs(bad_below / all_bad - good_below / all_good).max(axis=1)
        found = all_bad - bad_below + bad
        asked = found + all_good - good_below + good
        precision = np.divide(found, asked, out=np.zeros_like(found), where=asked > 0)
        mean_precision = np.einsum("ij,ij->i", bad, precision) / all_bad[:, 0]
    return area, apart, mean_precision


def _starts(score: np.ndarray) -> np.ndarray:
    """Where a new score begins, of sorted ones."""
    return np.flatnonzero(np.append(True, np.diff(score) != 0))


def _sides(
    ranked: np.ndarray, outcome: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the bad and of the good loans of each score."""
    bad, every = ranked * outcome, ranked
    if len(starts) < ranked.shape[1]:
        bad, every = (np.add.reduceat(side, starts, axis=1) for side in (bad, every))
    return bad, every - bad


def _area(bad: np.ndarray, good: np.ndarray, good_below: np.ndarray) -> np.ndarray:
    won = np.einsum("ij,ij->i", bad, good_below) - np.einsum("ij,ij->i", bad, good) / 2
    with np.errstate(invalid="ignore"):
        return np.asarray(won / (bad.sum(axis=1) * good_below[:, -1]))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """0 where there is no whole, a precision without anything flagged, say."""
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))


def resamples(rows: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row is drawn in each of `count` bootstrap resamples, in chunks (b, rows)."""
    generator = np.random.default_rng(seed)
    chunk = max(1, _HELD // rows)
    for begin in range(0, count, chunk):
        size = min(chunk, count - begin)
        drawn = generator.integers(0, rows, size=(size, rows))
        drawn += np.arange(size)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=size * rows)
        yield counts.reshape(size, rows).astype(np.float64)


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap values, leaving out resamples with only one class."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def log_losses(outcome: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each outcome, in nats, shape (n,)."""
    smallest = np.finfo(np.float64).eps
    p = np.clip(probability, smallest, 1 - smallest)
    return np.asarray(np.where(outcome == 1, -np.log(p), -np.log1p(-p)))


def calibration_bins(outcome: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Mean probability, observed bad rate and rows of each tenth of the scores, shape (10, 3).

    The arrays must be sorted by probability. Fewer rows than ten give fewer bins.
    """
    tenths = _tenths(len(outcome))
    return np.array(
        [[probability[i].mean(), outcome[i].mean(), len(probability[i])] for i in tenths]
    )


def _tenths(rows: int) -> list[slice]:
    """The tenths of sorted rows; fewer rows than ten give fewer."""
    least, more = divmod(rows, CALIBRATION_BINS)
    ends = np.cumsum([least + (tenth < more) for tenth in range(CALIBRATION_BINS)])
    begins = np.append(0, ends[:-1])
    return [slice(a, b) for a, b in zip(begins, ends, strict=True) if b > a]


def calibration_error(outcome: np.ndarray, probability: np.ndarray) -> float:
    """Mean distance between promised and observed bad rate over tenths (sorted arrays)."""
    promised, observed, rows = calibration_bins(outcome, probability).T
    return float(np.average(np.abs(promised - observed), weights=rows))
