"""Where state lies: one folder, and the URLs that may take its parts elsewhere.

Here: paths and the environment variables that move them. Not here: what is written there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Home:
    """The folder with all state (`LOAN_PLATFORM_HOME`), and the servers used instead of it.

    `dagster_url`, `decisions_url`: PostgreSQL, as `postgresql+psycopg2://user:password@host/db`;
    None means SQLite below `root`. `tracking_uri`: MLflow's store or server.
    """

    root: Path
    tracking_uri: str
    dagster_url: str | None = None
    decisions_url: str | None = None

    @classmethod
    def from_environment(cls) -> Home:
        return cls.at(Path(os.environ.get("LOAN_PLATFORM_HOME") or PROJECT_ROOT / ".loan_platform"))

    @classmethod
    def at(cls, root: Path) -> Home:
        root = root.expanduser().absolute()
        return cls(
            root=root,
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI")
            or f"sqlite:///{root / 'mlflow' / 'mlflow.db'}",
            dagster_url=os.environ.get("LOAN_PLATFORM_DAGSTER_URL") or None,
            decisions_url=os.environ.get("LOAN_PLATFORM_DECISIONS_URL") or None,
        )

    @property
    def dagster(self) -> Path:
        return self.root / "dagster"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlflow" / "artifacts"

    @property
    def bentoml(self) -> Path:
        return self.root / "bentoml"

    @property
    def decisions(self) -> Path:
        return self.root / "decisions"

    def portfolio(self, name: str) -> Path:
        return self.root / "data" / name

    def partition(self, portfolio: str, layer: str, key: str) -> Path:
        """The Parquet file of one layer and month."""
        return self.portfolio(portfolio) / layer / f"{key}.parquet"

    def partitions(self, portfolio: str, layer: str) -> dict[str, Path]:
        """The months a layer has, oldest first."""
        files = (self.portfolio(portfolio) / layer).glob("*.parquet")
        return {file.stem: file for file in sorted(files)}


def data_directories() -> list[Path]:
    """Where a relative source path is looked for, in order."""
    configured = os.environ.get("LOAN_DATA_DIR")
    return [Path(configured).expanduser().absolute()] if configured else []
