"""How good the models are beside what others get from the same rows.

On the splits on which systems of the field report, and on the shipped contracts' own: ours,
LightGBM with 600 trees at 0.03, CatBoost with 600, the mean of these two, and AutoGluon where a
Python has it. Each runs in a process of its own, on the same matrix. Prints Markdown: AUC, log
loss and calibration error on the judged rows, the difference to ours with its paired interval,
seconds and sizes, and whether the goals are reached.

    LOAN_DATA_DIR=/path/to/books python -m benchmarks.quality [--seeds 1 2 3] [--only lending]
    ... --rivals lightgbm catboost autogluon --autogluon-python /path/to/python

Needs the extras [families] and, for AutoGluon, [bench]: in this Python or in another one.

Here: what is run, one after the other, and the report. Not here: a run itself (`ours`, `rivals`),
the rows (`splits`), or the figures (`compare`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import compare, rivals, splits
from benchmarks.quality.compare import Result

ROOT = Path(__file__).parents[2]
NAMES = {
    "lightgbm": "LightGBM 600 at 0.03",
    "catboost": "CatBoost 600",
    "autogluon": "AutoGluon",
}
MEAN = "mean of these two"
AT_ONCE = ("lightgbm", "catboost")  # one thread each, on two cores
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the splits' names")
    parser.add_argument("--kind", choices=["field", "own", "both"], default="both")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--rivals", nargs="*", choices=NAMES, default=list(AT_ONCE))
    parser.add_argument("--autogluon-python", default=sys.executable)
    parser.add_argument("--autogluon-minutes", type=float, default=4.0, help="for each split")
    parser.add_argument("--autogluon-preset", default="best_quality")
    parser.add_argument(
        "--keep", type=Path, help="folder for the rivals' answers; what is there is not asked again"
    )
    options = parser.parse_args()
    books = Path(os.environ.get("LOAN_DATA_DIR", "."))
    if not (books / "credit_risk.csv.gz").is_file():
        sys.exit(f"no books in {books}; set LOAN_DATA_DIR to their folder")
    if "autogluon" in options.rivals and not _has_autogluon(options.autogluon_python):
        options.rivals.remove("autogluon")
        print(f"AutoGluon is left out: {options.autogluon_python} cannot import autogluon.tabular")

    began, verdicts = time.perf_counter(), []
    for kind, names in (("field", splits.FIELD), ("own", splits.SHIPPED)):
        for name in names:
            if options.kind in (kind, "both") and any(part in name for part in options.only):
                with tempfile.TemporaryDirectory(prefix="quality-") as folder:
                    verdicts += _judge(name, kind, books, Path(folder), options)
    print("\n## Verdict\n\n| split | no worse than every rival | goal reached |\n|---|---|---|")
    print(*verdicts, sep="\n")
    print(f"\n{(time.perf_counter() - began) / 60:.1f} minutes")


def _judge(
    name: str, kind: str, books: Path, folder: Path, options: argparse.Namespace
) -> list[str]:
    """Print the table of one split; gives its lines of the verdict."""
    if kind == "own":
        split = splits.own(name, splits.cleaned_months(name, books, folder / "months"))
        title = f"{name}, its contract's own split"
    else:
        split, title = splits.FIELD[name](books), name
    split.write(folder)
    outcome = split.outcome[split.judge]
    print(f"\n## {title}\n\n{len(split.learn):,} rows to learn from, {len(outcome):,} judged\n")
    results = _run(name, kind, books, folder, options)
    verdicts = []
    everywhere = np.ones(len(outcome), dtype=bool)
    subsets = [("", everywhere, split.goal)] + ([split.subset] if split.subset else [])
    for subset, rows, goal in subsets:
        of_rows = {
            system: Result([one[rows] for one in made.probability], made.cpu, made.clock, made.size)
            for system, made in results.items()
        }
        if subset:
            print(f"\n{subset}, {rows.sum():,} judged\n")
        lines, held = compare.table(outcome[rows], of_rows)
        print(*lines, sep="\n")
        verdict = "yes" if held else "NO"
        met = ""
        if goal:
            ranked, lost, _ = compare.figures(outcome[rows], of_rows["ours"])
            met = "yes" if compare.reached(ranked, lost, goal) else "NO"
            for who, (their_auc, their_loss) in (
                ("theirs", goal.theirs),
                ("strongest so far", goal.strongest),
                ("the least ours must reach", goal.least),
            ):
                print(f"| {who} | {their_auc or ''} | {their_loss or ''} | | | | | | |")
        verdicts.append(f"| {title}{', ' if subset else ''}{subset} | {verdict} | {met} |")
    print(f"\nours: {results['ours'].note}", flush=True)
    return verdicts


def _run(
    name: str, kind: str, books: Path, folder: Path, options: argparse.Namespace
) -> dict[str, Result]:
    """Every system with every seed, one after the other but for those of one thread."""
    ours = [sys.executable, "-m", "benchmarks.quality.ours", name, str(folder)]
    months = ["--months", str(folder / "months")] if kind == "own" else []
    script = str(Path(rivals.__file__))
    rows = _digest(folder) if options.keep else ""
    answers: dict[str, list[tuple[np.ndarray, dict[str, Any]]]] = {}
    for seed in options.seeds:

        def rival(system: str, python: str, *more: str, seed: int = seed) -> None:
            command = [python, script, system, str(folder), str(seed), *more]
            kept = options.keep and options.keep / "-".join([rows, system, str(seed), *more[1::2]])
            answers.setdefault(system, []).append(_answer(command, folder, system, kept))

        asked = [*ours, str(seed), "--books", str(books), *months]
        answers.setdefault("ours", []).append(_answer(asked, folder, "ours"))
        with ThreadPoolExecutor(len(AT_ONCE)) as workers:
            both = [one for one in AT_ONCE if one in options.rivals]
            list(workers.map(lambda one: rival(one, sys.executable), both))
        if "autogluon" in options.rivals:
            minutes, preset = str(options.autogluon_minutes), options.autogluon_preset
            python = options.autogluon_python
            rival("autogluon", python, "--minutes", minutes, "--preset", preset)
    order = [one for one in ("ours", *NAMES) if one in answers]
    results = {NAMES.get(one, one): _result(answers[one]) for one in order}
    if set(AT_ONCE) <= set(answers):
        results = _with_mean(results)
    return results


def _digest(folder: Path) -> str:
    """Of what every system is given."""
    digest = hashlib.sha256((folder / "task.json").read_bytes())
    with np.load(folder / "rows.npz") as rows:
        for name in sorted(rows):
            digest.update(np.ascontiguousarray(rows[name]).tobytes())
    return digest.hexdigest()[:16]


def _answer(
    command: Sequence[str], folder: Path, system: str, kept: Path | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """What a system says of the judged rows, and what it cost; in `kept`, once it is known."""
    names = (f"{system}.npy", f"{system}.json")
    if kept and (kept / names[-1]).is_file():
        folder = kept
    else:
        _run_one(command, system)
        if kept:
            kept.mkdir(parents=True, exist_ok=True)
            for name in names:
                shutil.copy(folder / name, kept / name)
    told = json.loads((folder / names[1]).read_text(encoding="utf-8"))
    return np.load(folder / names[0]), told


def _run_one(command: Sequence[str], system: str) -> None:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **({} if system == "autogluon" else ONE_THREAD)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")


def _result(answers: Sequence[tuple[np.ndarray, dict[str, Any]]]) -> Result:
    cpu, clock, size = (
        float(np.mean([told[name] for _, told in answers])) for name in ("cpu", "clock", "bytes")
    )
    notes = dict.fromkeys(told["recipe"] for _, told in answers if "recipe" in told)
    return Result([one for one, _ in answers], cpu, clock, size, "; ".join(notes))


def _with_mean(results: dict[str, Result]) -> dict[str, Result]:
    """With the mean of LightGBM and CatBoost after them."""
    one, other = (results[NAMES[system]] for system in AT_ONCE)
    mean = Result(
        [(a + b) / 2 for a, b in zip(one.probability, other.probability, strict=True)],
        one.cpu + other.cpu,
        max(one.clock, other.clock),
        one.size + other.size,
    )
    names = list(results)
    after = names.index(NAMES[AT_ONCE[1]]) + 1
    return {
        **{name: results[name] for name in names[:after]},
        MEAN: mean,
        **{name: results[name] for name in names[after:]},
    }


def _has_autogluon(python: str) -> bool:
    asked = [python, "-c", "import autogluon.tabular"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    main()
