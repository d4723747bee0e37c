"""The wording of an alert: what happened, where, what to do, and a link.

Here: plain facts in, one message out. Not here: where the facts come from (`components.alerting`),
who has been told (`ledger`), sending (`delivery`). A message holds names, months and counts, never
an applicant's values: it leaves the house.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

DEFAULT_UI_URL = "http://127.0.0.1:3000"
LISTED = 6


@dataclass(frozen=True)
class Alert:
    """One message about one failure.

    `key` names the failure: the same failure always has the same key, so that a receiver which
    is told twice (delivery is at least once) can tell. `failed_at` is in epoch seconds.
    """

    key: str
    failed_at: float
    severity: Literal["failure", "warning"]
    title: str
    what: str
    where: str
    mend: str
    link: str

    @property
    def body(self) -> str:
        return "\n".join(
            (
                f"What: {self.what}",
                f"Where: {self.where}",
                f"Do: {self.mend}",
                f"See: {self.link}",
                f"Key: {self.key}",
            )
        )


def failed_check(
    *,
    asset: Sequence[str],
    check: str,
    partitions: Sequence[str],
    description: str | None,
    mend: str | None,
    warning: bool,
    run_id: str,
    failed_at: float,
) -> Alert:
    """One evaluation of an asset check that failed. `run_id` is "" outside a run.

    `mend`: what to do, where the check knows; else the usual, for a check on bad data.
    """
    name = asset_name(asset)
    again = f"materialize {name} again" + (f" for {listed(partitions)}" if partitions else "")
    return Alert(
        key=f"check:{name}:{check}:{run_id or format(failed_at, '.3f')}",
        failed_at=failed_at,
        severity="warning" if warning else "failure",
        title=f"{asset[0]}: check {check} failed on {asset[-1]}",
        what=description or f"the check {check} did not pass",
        where=f"{name}, partition {listed(partitions)}" if partitions else name,
        mend=mend or f"read the check's figures at the link; once the cause is mended, {again}",
        link=run_link(run_id) if run_id else asset_link(asset),
    )


def failed_run(
    *,
    run_id: str,
    job: str,
    assets: Sequence[Sequence[str]],
    partitions: str | None,
    reason: str,
    failed_at: float,
) -> Alert:
    """One run that failed. `partitions` is a key or `first to last`."""
    names = sorted(asset_name(asset) for asset in assets)
    portfolios = sorted({asset[0] for asset in assets})
    where = listed(names) if names else f"job {job}"
    return Alert(
        key=f"run:{run_id}",
        failed_at=failed_at,
        severity="failure",
        title=f"{listed(portfolios) or job}: a run failed",
        what=reason,
        where=f"{where}, partition {partitions}" if partitions else where,
        mend="read the failed step at the link, mend its cause, then re-execute it from failure",
        link=run_link(run_id),
    )


def overdue_asset(*, asset: Sequence[str], failed_at: float) -> Alert:
    """An asset whose freshness policy began to fail at `failed_at`."""
    name = asset_name(asset)
    return Alert(
        key=f"overdue:{name}:{failed_at:.0f}",
        failed_at=failed_at,
        severity="warning",
        title=f"{asset[0]}: {asset[-1]} is overdue",
        what="it was not materialized within the time its freshness policy allows",
        where=name,
        mend="see whether its schedule and the daemon run, then materialize it",
        link=asset_link(asset),
    )


def asset_name(path: Sequence[str]) -> str:
    return "/".join(path)


def listed(names: Sequence[str]) -> str:
    """The names with commas, the tail of a long list counted."""
    shown = ", ".join(names[:LISTED])
    return shown if len(names) <= LISTED else f"{shown} and {len(names) - LISTED} more"


def run_link(run_id: str) -> str:
    return f"{_ui_url()}/runs/{run_id}"


def asset_link(path: Sequence[str]) -> str:
    return f"{_ui_url()}/assets/{asset_name(path)}"


def _ui_url() -> str:
    return (os.environ.get("LOAN_PLATFORM_UI_URL") or DEFAULT_UI_URL).rstrip("/")
