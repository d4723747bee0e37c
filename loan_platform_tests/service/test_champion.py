"""A new champion takes over whole, or not at all."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from bento import champion as module
from bento.champion import Champions, Packaged
from loan_platform.contract import Contract
from loan_platform.model.bundle import Bundle, bundle_hash
from loan_platform.registry.versions import Version
from loan_platform_tests.service.bundles import bundle


class Shelf:
    """Bundles in folders and an alias: as much of a registry as a service asks for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.alias: str | None = None
        self.hashes: dict[str, str] = {}
        self.loaded: list[str] = []

    def add(self, version: str, made: Bundle) -> None:
        (self.folder / version).mkdir()
        made.save(self.folder / version)
        self.hashes[version] = bundle_hash(self.folder / version)

    def named(self, alias: str) -> Version | None:
        assert alias == "champion"
        return Version(self.alias, self.hashes[self.alias]) if self.alias else None

    def load(self, version: str) -> Bundle:
        self.loaded.append(version)
        return Bundle.load(self.folder / version)


@pytest.fixture
def shelf(tmp_path: Path, credit_risk: Contract) -> Shelf:
    shelf = Shelf(tmp_path)
    for seed in (1, 2):
        shelf.add(str(seed), bundle(credit_risk, seed))
    return shelf


@pytest.fixture
def champions() -> Champions:
    return Champions("credit_risk", None, follows=True)


def version_of(champions: Champions) -> str | None:
    return champions.current.version if champions.current else None


def test_it_follows_the_alias_and_back(champions: Champions, shelf: Shelf) -> None:
    seen = []
    for alias in (None, "1", "1", "2", "1", None):
        shelf.alias = alias
        champions.look(shelf)
        seen.append(version_of(champions))
    # An alias taken away leaves the last champion answering: no decision is worse than none.
    assert seen == [None, "1", "1", "2", "1", "1"]
    assert champions.trouble is None


def test_one_that_does_not_load_leaves_the_old_one_and_is_told(
    champions: Champions, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.alias = "1"
    champions.look(shelf)
    (shelf.folder / "2" / "scorer-0.lightgbm").write_text("damaged")
    shelf.alias = "2"
    with caplog.at_level(logging.WARNING):
        champions.look(shelf)
        champions.look(shelf)
    assert version_of(champions) == "1"
    assert champions.trouble
    assert "version 2 cannot be served" in champions.trouble
    assert "not the file that was saved" in champions.trouble
    assert len(caplog.records) == 1, "told once, not at every look"
    shelf.alias = "1"
    champions.look(shelf)
    assert champions.trouble is None


def test_one_that_failed_is_tried_again_but_not_at_every_look(
    champions: Champions,
    shelf: Shelf,
    credit_risk: Contract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf.add("3", bundle(credit_risk, 3))
    shelf.alias = "3"
    away = (shelf.folder / "3").rename(shelf.folder / "away")
    champions.look(shelf)
    assert champions.trouble
    away.rename(shelf.folder / "3")
    champions.look(shelf)
    assert version_of(champions) is None
    monkeypatch.setattr(champions, "_try_again_at", 0.0)  # the pause is over
    champions.look(shelf)
    assert version_of(champions) == "3"
    assert champions.trouble is None


def test_another_portfolios_model_is_refused(
    champions: Champions, shelf: Shelf, credit_risk: Contract
) -> None:
    foreign = bundle(credit_risk.model_copy(update={"name": "cars"}))
    shelf.add("3", foreign)
    shelf.alias = "3"
    champions.look(shelf)
    assert version_of(champions) is None
    assert champions.trouble
    assert "set LOAN_PORTFOLIO=cars" in champions.trouble


def test_a_model_without_sense_is_refused(
    champions: Champions, shelf: Shelf, credit_risk: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bundle(credit_risk)
    beyond = replace(made, calibrator=made.calibrator.model_copy(update={"slope": float("nan")}))
    monkeypatch.setattr(shelf, "load", lambda _version: beyond)
    shelf.alias = "1"
    champions.look(shelf)
    assert version_of(champions) is None
    assert champions.trouble
    assert "gives no probability" in champions.trouble


def test_a_foreign_error_is_told_by_kind_alone(
    champions: Champions, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_version: str) -> Bundle:
        raise ConnectionError("postgresql://user:hush@host/registry is down")

    monkeypatch.setattr(shelf, "load", fail)
    shelf.alias = "1"
    champions.look(shelf)
    assert champions.trouble == "version 1 cannot be served: ConnectionError"


def packaged(folder: Path) -> Packaged:
    return Packaged("credit_risk", "7", folder)


def test_the_packaged_one_answers_at_once(tmp_path: Path, credit_risk: Contract) -> None:
    bundle(credit_risk).save(tmp_path)
    champions = Champions("credit_risk", packaged(tmp_path), follows=False)
    champions.start()
    assert version_of(champions) == "7"


def test_the_packaged_one_is_the_registrys_only_if_its_files_are(
    shelf: Shelf, credit_risk: Contract, tmp_path: Path
) -> None:
    """Two registries count from 1 each: version 1 of the one is not version 1 of the other."""
    own, foreign = bundle(credit_risk, 1), bundle(credit_risk, 9)
    own.save(tmp_path / "own")
    foreign.save(tmp_path / "foreign")
    shelf.alias = "1"
    for folder, loads in (("own", []), ("foreign", ["1"])):
        found = Packaged("credit_risk", "1", tmp_path / folder)
        champions = Champions("credit_risk", found, follows=False)
        champions.start()
        for _ in range(3):
            champions.look(shelf)
        assert shelf.loaded == loads
        assert champions.current
        assert champions.current.bundle.policy == own.policy


def test_a_version_that_says_nothing_of_its_files_is_loaded_once(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "named", lambda _alias: Version("1", None))
    champions = Champions("credit_risk", Packaged("credit_risk", "1", shelf.folder / "1"), False)
    champions.start()
    for _ in range(3):
        champions.look(shelf)
    assert shelf.loaded == ["1"]


def test_a_damaged_package_is_told_and_does_not_stop_the_service(tmp_path: Path) -> None:
    champions = Champions("credit_risk", packaged(tmp_path), follows=False)
    champions.start()
    assert version_of(champions) is None
    assert champions.trouble
    assert "the packaged version 7 cannot be served" in champions.trouble


def test_a_source_checkout_has_no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Packaged.find() is None
    monkeypatch.setattr(module, "PACKAGED", tmp_path)
    (tmp_path / "packaged.json").write_text(json.dumps({"portfolio": "cars", "version": "4"}))
    assert Packaged.find() == Packaged("cars", "4", tmp_path / "bundle")
