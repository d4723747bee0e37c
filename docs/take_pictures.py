"""Takes the README's pictures of a running platform.

    python docs/take_pictures.py DAGSTER HOME

`DAGSTER` is the link `loan-platform up` prints, `HOME` the folder of a demo.
Needs a Chromium of the system. Not here: anything a user runs.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent / "pictures"
PORTFOLIO = "credit_risk"


def main(dagster: str, home: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium found; install the package chromium")
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 3400, "height": 1000})  # wide: nodes in full
        group = f"{dagster}/locations/loan_platform/asset-groups/{PORTFOLIO}"
        _shoot(page, group, "asset_graph", 8)
        page.set_viewport_size({"width": 1500, "height": 900})
        _shoot(page, f"{dagster}/assets/{PORTFOLIO}/drift_report?view=overview", "drift_report", 6)
        page.set_viewport_size({"width": 1100, "height": 1500})
        _shoot(page, (Path(home) / "report.html").absolute().as_uri(), "report", 1)
        page.set_viewport_size({"width": 1100, "height": 1300})
        newest = max((Path(home) / "data" / PORTFOLIO / "cards").glob("*.html"), key=_version)
        _shoot(page, newest.absolute().as_uri(), "model_card", 1)
        browser.close()


def _version(card: Path) -> int:
    return int(card.stem.rpartition("-")[2])


def _shoot(page: Page, url: str, name: str, seconds: float) -> None:
    page.goto(url, wait_until="domcontentloaded")
    page.wait_for_timeout(seconds * 1000)
    page.screenshot(path=FOLDER / f"{name}.png")
    print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:3])
