"""The champion that answers: the packaged one first, then whichever the registry names.

A new version is loaded and tried beside the one that answers, on a thread of its own; then one
reference changes. Whoever read the reference before keeps the whole champion it got: schema,
features, model and policy never mix.
Not here: promotion (`loan_platform.registry`), or the bundle's own checks (`model.bundle`).
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

from loan_platform.contract.request import Application, example, request_model
from loan_platform.engine.prepared import PreparedFeatures
from loan_platform.model.bundle import Bundle, BundleError, bundle_hash
from loan_platform.model.reasons import Reasons
from loan_platform.registry.versions import Version

# Below `bentoml`, so that Bento's own log settings carry it.
logger = logging.getLogger("bentoml.loan_service")

POLL_SECONDS = 1.0
FIRST_LOOK_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 60.0

PACKAGED = Path(__file__).parent / "packaged"  # written by `build`


class Versions(Protocol):
    """What is asked of `loan_platform.registry.versions.Versions`."""

    def named(self, alias: Literal["champion"]) -> Version | None: ...

    def load(self, version: str) -> Bundle: ...


@dataclass(frozen=True)
class Champion:
    """One model version, ready to answer: everything that decides about a request."""

    version: str
    bundle: Bundle
    contract_hash: str
    policy_hash: str
    request: type[Application]
    features: PreparedFeatures

    @cached_property
    def reasons(self) -> Reasons:
        """Why it does not approve an application."""
        return Reasons(self.bundle, self.features)

    @classmethod
    def of(cls, version: str, bundle: Bundle, portfolio: str) -> Champion:
        """Make a bundle ready and try it.

        Raises:
            BundleError: it belongs to another portfolio, or gives no probability.
        """
        contract = bundle.contract
        if contract.name != portfolio:
            raise BundleError(
                f"version {version} decides about {contract.name}, this service about "
                f"{portfolio}; set LOAN_PORTFOLIO={contract.name} or promote another version"
            )
        features = PreparedFeatures(contract)
        matrix, _ = features.evaluate([example(contract)])
        probability = float(bundle.probability(matrix)[0])
        if not (math.isfinite(probability) and 0 <= probability <= 1):
            raise BundleError(
                f"version {version} gives no probability for the contract's example; train again"
            )
        return cls(
            version=version,
            bundle=bundle,
            contract_hash=contract.contract_hash,
            policy_hash=bundle.policy.policy_hash,
            request=request_model(contract),
            features=features,
        )


@dataclass(frozen=True)
class Packaged:
    """The bundle that lies inside a Bento."""

    portfolio: str
    version: str
    folder: Path

    @classmethod
    def find(cls) -> Packaged | None:
        """What `build` wrote beside this file; None when the service runs from its source."""
        record = PACKAGED / "packaged.json"
        if not record.is_file():
            return None
        return cls(**json.loads(record.read_text(encoding="utf-8")), folder=PACKAGED / "bundle")


class Champions:
    """Holds the champion of a portfolio, and follows the registry's alias where told to.

    `current` may be read from any thread and is None until there is a champion. `trouble` says
    what stands in the way of the newest version; the one before it goes on answering.
    """

    def __init__(self, portfolio: str, packaged: Packaged | None, follows: bool) -> None:
        self.portfolio = portfolio
        self.follows = follows
        self.current: Champion | None = None
        self.trouble: str | None = None
        self._packaged = packaged
        # Of `current`. A packaged bundle is the registry's only where number and hash agree:
        # another registry may have given the number to another model.
        self._answering: Version | None = None
        self._looked = threading.Event()
        self._stopping = threading.Event()
        self._failures = 0
        self._failed: Version | None = None
        self._try_again_at = 0.0

    def start(self) -> None:
        """Load what is packaged, then what the registry names; returns when there is an answer."""
        if self._packaged is not None:
            self._load_packaged(self._packaged)
        if self.follows:
            # A daemon: a registry that does not answer must not hold up the end of the process.
            threading.Thread(target=self._follow, name="champion", daemon=True).start()
            if self.current is None:
                self._looked.wait(FIRST_LOOK_SECONDS)

    def stop(self) -> None:
        self._stopping.set()

    def look(self, versions: Versions) -> None:
        """Take over the version that has the alias, unless it answers already."""
        named = versions.named("champion")
        if named is None or named == self._answering:
            self._failed, self._failures, self.trouble = None, 0, None
            return
        if named == self._failed and time.monotonic() < self._try_again_at:
            return
        if named != self._failed:
            self._failures = 0
        version = named.number
        try:
            champion = Champion.of(version, versions.load(version), self.portfolio)
        except Exception as error:
            self._failed = named
            self._failures += 1
            self._try_again_at = time.monotonic() + min(2.0**self._failures, LONGEST_PAUSE_SECONDS)
            self._report(f"version {version} cannot be served: {_say(error)}")
            return
        before = self.current.version if self.current else "none"
        self.current, self._answering = champion, named
        self._failed, self._failures, self.trouble = None, 0, None
        logger.info("%s: version %s answers now (before: %s)", self.portfolio, version, before)

    def _load_packaged(self, packaged: Packaged) -> None:
        try:
            bundle = Bundle.load(packaged.folder)
            self.current = Champion.of(packaged.version, bundle, self.portfolio)
            self._answering = Version(packaged.version, bundle_hash(packaged.folder))
        except Exception as error:
            self._report(f"the packaged version {packaged.version} cannot be served: {_say(error)}")

    def _follow(self) -> None:
        versions: Versions | None = None
        while not self._stopping.is_set():
            try:
                if versions is None:
                    versions = _registry(self.portfolio)
                self.look(versions)
            except Exception as error:
                self._report(f"the registry cannot be asked: {_say(error)}")
            self._looked.set()
            self._stopping.wait(POLL_SECONDS)

    def _report(self, trouble: str) -> None:
        if trouble != self.trouble:
            logger.warning("%s: %s", self.portfolio, trouble)
        self.trouble = trouble


def _registry(portfolio: str) -> Versions:
    from loan_platform.engine.home import Home
    from loan_platform.registry.versions import Versions as Registered

    return Registered(Home.from_environment(), portfolio)


def _say(error: Exception) -> str:
    """The platform's own words; of a foreign error its kind alone: its text may hold a secret."""
    ours = type(error).__module__.startswith("loan_platform.")
    return str(error) if ours else type(error).__name__
