"""The assets from the challenger to the packaged champion.

Here: champion, baseline_stats, loan_service.
Not here: the challenger (`training`), the promotion rule and the moves (`registry`), the service
(`bento/`).
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pyarrow.parquet as pq

from loan_platform.components.alias_watch import alias_check_result, alias_check_spec
from loan_platform.components.book import read_bins
from loan_platform.components.presentation import asset_spec, file_metadata, picture
from loan_platform.components.training import model_search, trained_model
from loan_platform.contract import Contract
from loan_platform.engine.files import make_folder, write_parquet, write_text
from loan_platform.engine.home import PROJECT_ROOT, Home

MODEL_ASSETS = ("trained_model", "champion", "baseline_stats", "loan_service")
DECIDED_BY = "loan-platform/champion"
WAITS = "no champion yet: a person promotes the first one, as the asset champion says"


def champion_assets(contract: Contract) -> list[dg.AssetsDefinition]:
    return [
        model_search(contract),
        trained_model(contract),
        _champion(contract),
        _baseline_stats(contract),
        _loan_service(contract),
    ]


def _champion(contract: Contract) -> dg.AssetsDefinition:
    spec = asset_spec(
        contract,
        "champion",
        "The promotion decision: challenger against champion on the same held-out rows, "
        "and the evidence for it. Moves the alias champion only on evidence; where "
        "promotion.mode leaves it to people, it tells them how.",
        kinds={"mlflow"},
        deps=["trained_model"],
    )

    @dg.multi_asset(
        name=f"{contract.name}_champion", specs=[spec], check_specs=[alias_check_spec(contract)]
    )
    def champion(
        context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]
    ) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster takes it bare beside checks
        from loan_platform.decisions.outcomes import history_path
        from loan_platform.registry.ledger import Ledger
        from loan_platform.registry.models import Registry
        from loan_platform.registry.moves import reconcile
        from loan_platform.registry.promotion import judge

        registry, ledger = Registry(home, contract.name), Ledger(home, contract.name)
        for entry in reconcile(registry, ledger, contract.promotion.alias_moved_by_hand):
            context.log.warning(f"the alias {entry.alias}: {entry.event}, {entry.reason}")
        before = registry.version_of("champion")
        challenger = registry.version_of("challenger")
        if challenger is None:
            raise dg.Failure(
                f"{contract.name} has no challenger; "
                f"materialize {contract.name}/trained_model first."
            )
        if challenger == before:
            return dg.MaterializeResult(
                metadata={"champion_version": before, "decision": "the challenger is the champion"},
                check_results=[alias_check_result(contract, home)],
            )
        candidate = registry.load(challenger)
        rival, lost = _present_champion(registry, ledger, before)
        if lost:
            context.log.warning(lost)
        verdict = judge(
            contract,
            candidate,
            rival,
            home.partitions(contract.name, "cleaned_features"),
            max(one.record.as_of for one in (candidate, rival) if one),
            raw=home.partitions(contract.name, "raw_loans"),
            reported=history_path(home, contract.name),
            lost=lost,
        )
        evidence = {
            "reasons": verdict.reasons,
            "challenger_version": challenger,
            "champion_before": before,
            "dagster_run_id": context.run.run_id,
            "evidence": json.loads(json.dumps(verdict.evidence, default=str)),
        }
        decision, next_step = _act(contract, registry, ledger, verdict, evidence)
        now = challenger if decision == "promoted" else before
        context.log.info(f"version {challenger} {decision}: {'; '.join(verdict.reasons)}")
        path = home.portfolio(contract.name) / "champion" / f"version-{challenger}.json"
        written = {"decision": decision, "champion_version": now, **evidence}
        write_text(json.dumps(written, indent=1), path)
        return dg.MaterializeResult(
            metadata={
                "decision": decision,
                **({"next_step": dg.MetadataValue.md(next_step)} if next_step else {}),
                "simulated": candidate.record.simulated,
                "reasons": dg.MetadataValue.md("\n".join(f"- {why}" for why in verdict.reasons)),
                "challenger_version": challenger,
                "champion_before": before or "none",
                "champion_version": now or "none",
                **_shown(verdict),
                "evidence": dg.MetadataValue.json(evidence["evidence"]),
                "mlflow_run_id": registry.run_id(challenger),
                "dagster/uri": path.as_uri(),
            },
            check_results=[alias_check_result(contract, home)],
        )

    return champion


def _present_champion(registry: Any, ledger: Any, version: str | None) -> tuple[Any, str | None]:
    """The champion's bundle, or why there is none although there was one."""
    from loan_platform.model.bundle import BundleError
    from loan_platform.registry.versions import RegistryError

    if version is None:
        line = ledger.standing().line
        return None, (
            f"THE CHAMPION IS LOST: the alias champion names no version, and version {line[-1]} "
            "was the last it named"
            if line
            else None
        )
    try:
        return registry.load(version), None
    except (BundleError, RegistryError) as error:
        return None, f"THE CHAMPION IS LOST: version {version} cannot be loaded ({error})"


def _act(
    contract: Contract, registry: Any, ledger: Any, verdict: Any, evidence: dict[str, Any]
) -> tuple[str, str]:
    """Move the alias, or write the verdict down for a person; the decision, and what is to do."""
    from loan_platform.registry.moves import judged, promote

    version, mode = evidence["challenger_version"], contract.promotion.mode
    withdrawn = ledger.standing().withdrawn.get(version)
    if verdict.promote and mode == "automatic" and not withdrawn:
        reason = "; ".join(verdict.reasons)
        promote(registry, ledger, version, by=DECIDED_BY, reason=reason, evidence=evidence)
        return "promoted", ""
    judged(
        registry,
        ledger,
        version,
        in_favour=verdict.promote,
        champion_before=evidence["champion_before"],
        by=DECIDED_BY,
        reasons=verdict.reasons,
        evidence=evidence,
    )
    if not verdict.promote:
        return "refused", ""
    asked = f"loan-platform promote {contract.name} --version {version} --by NAME"
    if withdrawn:
        return "proposed", (
            f"{withdrawn.by} rolled back from version {version} on {withdrawn.at[:10]}, so it is "
            f"not promoted by itself. A person who knows better: "
            f"`{asked} --despite 'the reason'`"
        )
    if mode == "two_person":
        return "proposed", (
            f"One person asks: `{asked}`; another one approves: "
            f"`loan-platform approve {contract.name} --by ANOTHER-NAME`"
        )
    return "proposed", f"A person promotes it: `{asked}`"


def _shown(verdict: Any) -> dict[str, Any]:
    """The gains and the swap set for the page of the asset."""
    from loan_platform.registry.evidence import draw_gains, gains_table, swap_table

    shown: dict[str, Any] = {}
    if table := gains_table(verdict.evidence):
        shown["gains"] = dg.MetadataValue.md(table)
    if drawn := draw_gains(verdict.evidence):
        shown["gains_picture"] = picture(drawn, "gains of the challenger with their intervals")
    if verdict.swap_set:
        shown["swap_set"] = dg.MetadataValue.md(swap_table(verdict.swap_set))
    return shown


def _baseline_stats(contract: Contract) -> dg.AssetsDefinition:
    spec = asset_spec(
        contract,
        "baseline_stats",
        "What the champion learnt from: the feature counts summed over its training months. "
        "Months are compared with this.",
        kinds={"duckdb", "parquet"},
        deps=["champion", "feature_counts"],
    )

    @dg.multi_asset(name=f"{contract.name}_baseline_stats", specs=[_may_wait(spec)])
    def baseline_stats(
        context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        from loan_platform.drift.counts import total
        from loan_platform.drift.report import baseline_profile
        from loan_platform.registry.models import Registry

        registry = Registry(home, contract.name)
        version = _champion_version(contract, registry)
        if version is None:
            context.log.info(WAITS)
            return
        record = registry.load(version).record
        months = record.partitions
        bins = read_bins(contract, home)
        baseline = total(counts_of(contract, home, bins, months))
        path = home.portfolio(contract.name) / "baseline_stats.parquet"
        origin = {
            "model_version": version,
            "months": ",".join(months),
            "simulated": str(record.simulated),
        }
        counted = baseline.schema.metadata or {}  # in which bins
        write_parquet(baseline.replace_schema_metadata({**counted, **origin}), path)
        yield dg.MaterializeResult(
            metadata={
                **file_metadata(path, len(baseline)),
                "champion_version": version,
                "simulated": record.simulated,
                "months": ", ".join(months),
                "profile": dg.MetadataValue.md(baseline_profile(contract, bins, baseline)),
            }
        )

    return baseline_stats


def counts_of(contract: Contract, home: Home, bins: Any, months: list[str]) -> list[Any]:
    """Count tables of `months`, all counted in `bins`.

    Raises:
        dg.Failure: a month is not counted, or was counted in other bins.
    """
    tables, wrong = [], []
    for month in months:
        path = home.partition(contract.name, "feature_counts", month)
        table = pq.read_table(path) if path.is_file() else None
        if (
            table is None
            or (table.schema.metadata or {}).get(b"bins_hash") != bins.bins_hash.encode()
        ):
            wrong.append(month)
        else:
            tables.append(table)
    if wrong:
        raise dg.Failure(
            f"not counted in the present bins: {', '.join(wrong)}. "
            f"Materialize {contract.name}/feature_counts for these months.",
            allow_retries=False,
        )
    return tables


def _may_wait(spec: dg.AssetSpec) -> dg.AssetSpec:
    """An asset of the champion: nothing is made of it while a person has not promoted one."""
    return spec.replace_attributes(skippable=True)


def _champion_version(contract: Contract, registry: Any) -> str | None:
    """The champion; None where the first one waits for a person.

    Raises:
        dg.Failure: there is none, and nobody is waited for.
    """
    version: str | None = registry.version_of("champion")
    if version is None and contract.promotion.mode == "automatic":
        raise dg.Failure(
            f"{contract.name} has no champion; materialize {contract.name}/trained_model and "
            f"{contract.name}/champion first.",
            allow_retries=False,
        )
    return version


def _loan_service(contract: Contract) -> dg.AssetsDefinition:
    spec = asset_spec(
        contract,
        "loan_service",
        "The champion as a Bento: the service, its model and its pinned requirements, packaged.",
        kinds={"bentoml"},
        deps=["champion"],
    )

    @dg.multi_asset(name=f"{contract.name}_loan_service", specs=[_may_wait(spec)])
    def loan_service(
        context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        from loan_platform.registry.models import Registry

        registry = Registry(home, contract.name)
        version = _champion_version(contract, registry)
        if version is None:
            context.log.info(WAITS)
            return
        built = build_bento(contract, home, registry, version)
        context.log.info(f"built {built['tag']}")
        yield dg.MaterializeResult(
            metadata={
                "bento_tag": built["tag"],
                "path": dg.MetadataValue.path(built["path"]),
                "size_bytes": built["size_bytes"],
                "champion_version": version,
                "simulated": registry.load(version).record.simulated,
                "serve": serve_command(home, built["tag"]),
            }
        )

    return loan_service


def serve_command(home: Home, tag: str) -> dg.MarkdownMetadataValue:
    """The shell line that serves a Bento of this platform, and what has to be set beside it.

    An address that may hold a password is named, never shown.
    """
    addresses = {"MLFLOW_TRACKING_URI": home.tracking_uri}
    if home.decisions_url:
        addresses["LOAN_PLATFORM_DECISIONS_URL"] = home.decisions_url
    secret = [name for name, address in addresses.items() if _may_hold_a_secret(address)]
    settings = {
        "BENTOML_HOME": str(home.bentoml),
        "LOAN_PLATFORM_HOME": str(home.root),
        **{name: address for name, address in addresses.items() if name not in secret},
    }
    shown = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    beside = f"\n\nwith the platform's {' and '.join(secret)} set" if secret else ""
    return dg.MetadataValue.md(f"```sh\n{shown} bentoml serve {tag}\n```{beside}")


def _may_hold_a_secret(address: str) -> bool:
    parts = urlsplit(address)
    return "@" in parts.netloc or bool(parts.query)


def build_bento(contract: Contract, home: Home, registry: Any, version: str) -> dict[str, Any]:
    """Build the champion's Bento in a process of its own.

    BentoML takes its store from the environment once, when it is imported.
    """
    make_folder(home.bentoml)
    with tempfile.TemporaryDirectory() as folder:
        bundle = registry.download(version, Path(folder))
        built = subprocess.run(
            [
                sys.executable,
                str(PROJECT_ROOT / "bento" / "build.py"),
                *("--portfolio", contract.name, "--bundle", str(bundle), "--version", version),
            ],
            env={**os.environ, "BENTOML_HOME": str(home.bentoml), "BENTOML_DO_NOT_TRACK": "True"},
            capture_output=True,
            text=True,
            check=False,
        )
    if built.returncode != 0:
        raise dg.Failure(
            f"the Bento of version {version} was not built: {built.stderr.strip()[-2000:]}"
        )
    answer: dict[str, Any] = json.loads(built.stdout.strip().splitlines()[-1])
    return answer
