"""Sending alerts through Apprise: Slack, e-mail, webhooks, whatever a URL names.

Here: the receivers of `LOAN_PLATFORM_ALERT_URLS`, and one attempt to tell one of them.
Not here: what was told before (`ledger`). The URLs hold secrets: they are never printed, logged or
stored; a receiver is spoken of by its scheme and its place in the list.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from loan_platform.alerts.message import Alert

VARIABLE = "LOAN_PLATFORM_ALERT_URLS"
# So many refusals in a row mean the receiver is down, not that it dislikes a message.
REFUSALS_IN_A_ROW = 3


@dataclass(frozen=True)
class Receiver:
    """One place alerts go to. `identity` is stable across restarts and hides the URL."""

    name: str
    identity: str
    _url: str = field(repr=False)

    def tell(self, alert: Alert) -> bool:
        """Send one alert; whether the receiver took it."""
        import apprise

        _keep_urls_out_of_logs()
        plugin = apprise.Apprise.instantiate(self._url)
        if plugin is None:
            return False
        sender = apprise.Apprise()
        sender.add(plugin)
        kind = apprise.NotifyType.FAILURE
        if alert.severity == "warning":
            kind = apprise.NotifyType.WARNING
        return bool(sender.notify(body=alert.body, title=alert.title, notify_type=kind))


@dataclass(frozen=True)
class Delivery:
    """Keys of the alerts a receiver took, and of those it was offered and did not take."""

    delivered: frozenset[str]
    refused: frozenset[str]


def receivers(urls: str | None = None) -> tuple[list[Receiver], list[str]]:
    """The receivers in `urls` (default: `LOAN_PLATFORM_ALERT_URLS`), and what is wrong with others.

    URLs are separated by spaces or commas; a comma inside a URL stays where no scheme follows it.
    """
    import apprise

    _keep_urls_out_of_logs()
    text = os.environ.get(VARIABLE, "") if urls is None else urls
    found: dict[str, Receiver] = {}
    problems: list[str] = []
    entries = [url for url in re.split(r"\s+|,\s*(?=[A-Za-z0-9+.-]+://)", text.strip()) if url]
    for place, url in enumerate((entry.strip(",") for entry in entries), start=1):
        scheme, separator, _ = url.partition("://")
        name = f"{scheme if separator else 'receiver'} #{place}"
        if apprise.Apprise.instantiate(url) is None:
            problems.append(
                f"{VARIABLE}: entry {place} is not a URL that Apprise understands; "
                "see https://github.com/caronc/apprise for the form of each service"
            )
            continue
        found.setdefault(_identity(url), Receiver(name, _identity(url), url))
    return list(found.values()), problems


def deliver(alerts: Sequence[Alert], receiver: Receiver, *, seconds: float = 20) -> Delivery:
    """Offer the alerts to one receiver, in order, until done, out of time, or it seems down."""
    deadline = time.monotonic() + seconds
    delivered: set[str] = set()
    refused: set[str] = set()
    in_a_row = 0
    for alert in alerts:
        if in_a_row >= REFUSALS_IN_A_ROW or time.monotonic() >= deadline:
            break
        if receiver.tell(alert):
            delivered.add(alert.key)
            in_a_row = 0
        else:
            refused.add(alert.key)
            in_a_row += 1
    return Delivery(frozenset(delivered), frozenset(refused))


@functools.lru_cache(maxsize=64)
def _identity(url: str) -> str:
    """12 hex digits, slow to make on purpose: a short secret cannot be guessed back from them."""
    return hashlib.pbkdf2_hmac("sha256", url.encode(), b"loan_platform alerts", 200_000, 6).hex()


def _keep_urls_out_of_logs() -> None:
    """Apprise prints a URL it cannot read, urllib3 prints each path when debugging."""
    logging.getLogger("apprise").disabled = True
    requests_log = logging.getLogger("urllib3.connectionpool")
    requests_log.setLevel(max(requests_log.level, logging.INFO))
