"""Builds the Bento of a champion: `python bento/build.py --portfolio P --bundle DIR --version V`.

The bundle is staged among the sources, not in Bento's model store: an exported or copied Bento
is then whole, and serves with no registry at hand. Prints one line of JSON: tag, path, size.
Not here: which version to ship, or when (`loan_platform.components`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loan_platform.model.bundle import Bundle

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")

PROJECT = Path(__file__).resolve().parents[1]
SERVICE = (
    *("__init__.py", "service.py", "app.py", "batching.py", "champion.py"),
    *("outcomes.py", "refusal.py"),
)
ROOMS = ("contract", "engine", "decisions", "model")  # of loan_platform
LOCKS = ("requirements.lock", "requirements-families.lock")
READING = ("__init__.py", "versions.py")  # of its registry: a service never trains or registers


def stage(folder: Path, portfolio: str, bundle: Path, version: str) -> dict[str, str]:
    """Lay the Bento's sources out in `folder`; give its labels.

    Raises:
        BundleError: the bundle cannot be read, or is another portfolio's, or needs a library
            that is in no lock.
    """
    from loan_platform.model.bundle import Bundle, BundleError

    loaded = Bundle.load(bundle)
    contract = loaded.contract
    if contract.name != portfolio:
        raise BundleError(f"{bundle}: a bundle of {contract.name}, not of {portfolio}")
    without_caches = shutil.ignore_patterns("__pycache__")
    (folder / "bento").mkdir()
    for name in SERVICE:
        shutil.copy(PROJECT / "bento" / name, folder / "bento")
    (folder / "loan_platform").mkdir()
    shutil.copy(PROJECT / "loan_platform" / "__init__.py", folder / "loan_platform")
    for room in ROOMS:
        source = PROJECT / "loan_platform" / room
        shutil.copytree(source, folder / "loan_platform" / room, ignore=without_caches)
    (folder / "loan_platform" / "registry").mkdir()
    for name in READING:
        shutil.copy(
            PROJECT / "loan_platform" / "registry" / name, folder / "loan_platform" / "registry"
        )
    packaged = folder / "bento" / "packaged"
    shutil.copytree(bundle, packaged / "bundle")
    record = json.dumps({"portfolio": portfolio, "version": version})
    (packaged / "packaged.json").write_text(record + "\n", encoding="utf-8")
    shutil.copy(_requirements(loaded), folder / "requirements.txt")
    return {
        "portfolio": portfolio,
        "model_version": version,
        "contract_hash": contract.contract_hash,
    }


def _requirements(bundle: Bundle) -> Path:
    """The smallest lock that holds all that the model's scorers need.

    XGBoost and CatBoost are an extra, which only the second one holds.

    Raises:
        BundleError: no lock holds them.
    """
    from loan_platform.model.bundle import BundleError

    for lock in LOCKS:
        text = (PROJECT / lock).read_text(encoding="utf-8")
        if all(f"\n{name}==" in text for name in bundle.scorer.libraries):
            return PROJECT / lock
    wanted = ", ".join(bundle.scorer.libraries)
    raise BundleError(
        f"no lock holds {wanted}; compile {LOCKS[-1]} again with the extra [families]"
    )


def build(portfolio: str, bundle: Path, version: str) -> dict[str, str | int]:
    """Build into the store at `BENTOML_HOME`; give tag, path and size in bytes."""
    import bentoml

    with tempfile.TemporaryDirectory(prefix="loan-bento-") as folder:
        labels = stage(Path(folder), portfolio, bundle, version)
        built = bentoml.build(
            "bento.service:LoanService",
            name=portfolio,
            labels=labels,
            description=f"Decides about {portfolio} with model version {version}.",
            include=["*"],
            python={"requirements_txt": "requirements.txt", "lock_packages": False},
            build_ctx=folder,
        )
    path = Path(built.path)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return {"tag": str(built.tag), "path": str(path), "size_bytes": size}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--portfolio", required=True)
    parser.add_argument("--bundle", required=True, type=Path, help="folder of a saved bundle")
    parser.add_argument("--version", required=True, help="the bundle's version in the registry")
    arguments = parser.parse_args()
    from loan_platform.model.bundle import BundleError

    try:
        built = build(arguments.portfolio, arguments.bundle.resolve(), arguments.version)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(built))
    return 0


if __name__ == "__main__":
    sys.exit(main())
