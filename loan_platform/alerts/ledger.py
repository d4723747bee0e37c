"""Who has been told what: one ledger for each receiver, small enough for a sensor's cursor.

Here: which alerts are pending, and the ledger after a delivery; nothing that has an effect.
Not here: sending (`delivery`), where the ledger is kept (`components.alerting`).

A failure can become visible later than its time stamp says (a run that ends while another tick
reads), so a look goes back by `OVERLAP` and what was told within it is remembered by key. What
could not be delivered is owed, by key, until it is delivered or `KEPT` has passed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pydantic import BaseModel, ConfigDict

from loan_platform.alerts.message import Alert

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
OVERLAP = 10 * MINUTE
KEPT = 7 * DAY
# A receiver that is new here hears of failures this far back, not of all history.
FIRST_LOOK = 1 * DAY


class Debt(BaseModel):
    """An alert that is still to be delivered: when the failure was, and how often it was tried."""

    model_config = ConfigDict(frozen=True)

    failed_at: float
    attempts: int


class Ledger(BaseModel):
    """What one receiver was told and is owed. Times are epoch seconds.

    Every failure up to `through - OVERLAP` that is not owed is settled. `told` holds the keys
    delivered for later ones.
    """

    model_config = ConfigDict(frozen=True)

    through: float
    told: dict[str, float] = {}
    owed: dict[str, Debt] = {}

    @classmethod
    def opened(cls, now: float) -> Ledger:
        return cls(through=now - FIRST_LOOK + OVERLAP)

    @property
    def since(self) -> float:
        """Failures at or before this need not be looked at."""
        settled = self.through - OVERLAP
        return min([settled, *(debt.failed_at - 1 for debt in self.owed.values())])

    def settled(self, key: str, failed_at: float) -> bool:
        """Whether this failure needs no message any more."""
        if key in self.owed:
            return False
        return key in self.told or failed_at <= self.through - OVERLAP

    def after(
        self,
        pending: Iterable[Alert],
        *,
        delivered: Collection[str],
        refused: Collection[str],
        now: float,
    ) -> Ledger:
        """The ledger once `pending` was seen at `now` and some of it delivered or refused."""
        told, owed = dict(self.told), dict(self.owed)
        for alert in pending:
            debt = owed.pop(alert.key, Debt(failed_at=alert.failed_at, attempts=0))
            if alert.key in delivered:
                told[alert.key] = alert.failed_at
            else:
                attempts = debt.attempts + (alert.key in refused)
                owed[alert.key] = Debt(failed_at=debt.failed_at, attempts=attempts)
        through = max(self.through, now)
        return Ledger(
            through=through,
            told={key: at for key, at in told.items() if at > through - OVERLAP},
            owed={key: debt for key, debt in owed.items() if debt.failed_at > now - KEPT},
        )


def pending(alerts: Iterable[Alert], ledger: Ledger) -> list[Alert]:
    """What the receiver is still to be told: least often tried first, then oldest first.

    That order lets a message which a receiver refuses for good never stand before the others.
    """
    by_key = {a.key: a for a in alerts if not ledger.settled(a.key, a.failed_at)}

    def turn(alert: Alert) -> tuple[int, float]:
        debt = ledger.owed.get(alert.key)
        return (debt.attempts if debt else 0, alert.failed_at)

    return sorted(by_key.values(), key=turn)
