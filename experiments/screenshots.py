"""The pictures of the pages in docs/img, from real runs.

    python experiments/screenshots.py                            # runs first what it shows
    python experiments/screenshots.py --run RUN --sweep SWEEP    # of runs that are there

RUN: a run folder of method=aifd, for the report and the attacked prompts. SWEEP: the folder of a sweep of methods, for
dashboard, verdicts and score cards. It needs Chromium or Chrome.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "img"
HOME = Path("outputs/screenshots")
SMALL = ["data.limit=120", "tuning.max_steps=6", "evaluation.limit=20", f"paths.store={HOME / 'store'}"]
SWEPT = ["method=ifd,random,length,perplexity", "selection.ratio=0.1,0.3", "seed=0,1"]
# Width and height in pixels, and whether the reader's setting is dark.
PICTURES = {"": (1000, 1250, False), "-400-dark": (400, 1250, True)}


def pages(run: Path, sweep: Path) -> dict[str, Path]:
    """Write the pages that compare the runs of a sweep; returns all pages by the name of their picture."""
    for words in (["dashboard", str(sweep)], ["compare", str(sweep)], ["card", "--runs", str(sweep)]):
        winnow(*words)
    return {
        "report": run / "report.html",
        "attacks": run / "attacks.html",
        "dashboard": sweep / "dashboard.html",
        "verdicts": sweep / "verdicts.html",
        "scorecards": sweep / "scorecards.html",
    }


def winnow(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "winnow", *words], check=True)


def picture(page: Path, path: Path, width: int, height: int, dark: bool) -> None:
    """Write the top of a page as a PNG. Windows of Chromium are at least 500 wide: a narrower page is framed."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("screenshots: neither Chromium nor Chrome is installed.")
    with tempfile.TemporaryDirectory() as place:
        frame = Path(place) / "frame.html"
        style = f"position: absolute; inset: 0; border: 0; width: {width}px; height: {height}px"
        frame.write_text(
            f'<meta name="color-scheme" content="light dark"><iframe src="{page.resolve().as_uri()}" style="{style}">'
        )
        subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                *(f"--window-size={width},{height}", f"--screenshot={path.resolve()}", frame.as_uri()),
            ],
            check=True,
            capture_output=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--sweep", type=Path)
    parser.add_argument("--out", type=Path, default=IMAGES)
    options = parser.parse_args()
    run, sweep = options.run or HOME / "run", options.sweep or HOME / "sweep"
    if options.run is None:
        winnow(*SMALL, "method=aifd", f"paths.run={run}")
    if options.sweep is None:
        winnow("--multirun", *SMALL, *SWEPT, f"hydra.sweep.dir={sweep}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name, page in pages(run, sweep).items():
        for suffix, (width, height, dark) in PICTURES.items():
            picture(page, options.out / f"{name}{suffix}.png", width, height, dark)


if __name__ == "__main__":
    main()
