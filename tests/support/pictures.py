"""Makes the pictures of the README from a real run of the demo: python -m tests.support.pictures

terminal.svg: what `bin/migrate-all --demo` prints, line by line at the times at which it did.
report.png: the page that it wrote, in headless Chromium (Debian's package `chromium`).
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import List, Sequence, Tuple

from tests.support.orgs import TIME_LIMIT_S

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "bt_migrate" / "docs"
COMMAND = "bin/migrate-all --demo"
COLUMNS = 80
CHAR_WIDTH = 8.4
LINE_HEIGHT = 19
MARGIN = 14
REPORT_SIZE = "1400,1250"

Line = Tuple[float, str]  # seconds since the start, the text


def record(command: Sequence[str]) -> List[Line]:
    """Runs the command. Returns its output of both streams with the time of each line."""
    begun = time.monotonic()
    lines = []
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        lines.append((time.monotonic() - begun, line.rstrip("\n")))
    if process.wait() != 0:
        raise SystemExit(f"{COMMAND} ended with {process.returncode}: {lines[-1:]}")
    return lines


def terminal_svg(lines: Sequence[Line]) -> str:
    """The lines as one picture in which each appears at its time."""
    width = COLUMNS * CHAR_WIDTH + 2 * MARGIN
    shown = [(0.0, f"$ {COMMAND}"), *lines]
    height = len(shown) * LINE_HEIGHT + 2 * MARGIN
    texts = [
        f'<text x="{MARGIN}" y="{MARGIN + (number + 0.75) * LINE_HEIGHT:.0f}" '
        f'style="animation-delay:{seconds:.2f}s" xml:space="preserve">{html.escape(text)}</text>'
        for number, (seconds, text) in enumerate(shown)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
            f'role="img" aria-label="Output of {COMMAND}">',
            "<style>",
            "  rect { fill: #12161c }",
            "  text { fill: #e6eaf0; font: 14px ui-monospace, Menlo, Consolas, monospace;",
            "         opacity: 0; animation: appear 0.01s forwards }",
            "  @keyframes appear { to { opacity: 1 } }",
            "</style>",
            '<rect width="100%" height="100%" rx="8"/>',
            *texts,
            "</svg>",
            "",
        ]
    )


def report_png(page: Path, picture: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("report.png needs chromium (apt-get install chromium)")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--disable-background-networking", f"--user-data-dir={profile}",
                f"--window-size={REPORT_SIZE}", "--virtual-time-budget=5000",
                f"--screenshot={picture}", page.as_uri(),
            ],
            check=True, capture_output=True, timeout=TIME_LIMIT_S,
        )  # fmt: skip


def main() -> None:
    lines = record([sys.executable, *COMMAND.split()])
    (DOCS / "terminal.svg").write_text(terminal_svg(lines), encoding="utf-8")
    written = [
        found[1] for _, text in lines for found in [re.search(r"(\S+report\.html)", text)] if found
    ]
    if not written:
        raise SystemExit("the demo printed no path of a report.html")
    report_png(Path(written[-1]), DOCS / "report.png")


if __name__ == "__main__":
    main()
