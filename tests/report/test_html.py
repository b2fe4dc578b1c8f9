"""report.html: what it shows, that no name becomes markup, and that it opens quickly."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List

import pytest

from bt_migrate.report.html import embedded, object_rows, page_html, read_timeline, verdict
from bt_migrate.state.object_file import ObjectOutcome
from bt_migrate.state.run_directory import RunDirectory
from tests.support.orgs import TIME_LIMIT_S, Pair, environment, report, run, runs, tiny_pair

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HEADLESS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=10000", "--dump-dom",
)  # fmt: skip
NASTY = "<script>alert(1)</script> & \u202egnp.exe \x1b[31m"
OPENS_S = 2.0
ESTIMATE = {
    "rows": 1234, "bytes": 0, "processed_bytes": 0, "uncounted_streams": 0, "attachments": 0,
    "queries": 2, "inserts": 2, "queries_per_minute": 0, "seconds": 1.0,
}  # fmt: skip
NO_URLS = {"source": "", "destination": ""}


def report_with(**fields: Any) -> Dict[str, Any]:
    sides = {
        side: {"org_id": "0" * 8, "org_name": name, "url": "http://127.0.0.1:1"}
        for side, name in (("source", "acme"), ("destination", "globex"))
    }
    selection = {"resources": ["prompts"], "projects": [], "created_after": None}
    return {
        "tool_version": "0", "status": "completed", "dry_run": False, "run_directory": "/run",
        **sides, "selection": selection, "round": 0, "started": "2026-01-01T00:00:00Z",
        "sessions": [], "duration_seconds": 1.5, "phases_done": [], "objects": [], "rows": [],
        "planned_streams": [], "estimate": None, "verification": None, "lag": None, "problems": [],
        "totals": {"objects": {}, "rows": {"fetched": 0, "bytes": 0}, "rows_per_second": 0},
        "findings": [], "findings_by_kind": {}, "next_commands": [], "to_do": [], "failed": [],
        "lost": [], **fields,
    }  # fmt: skip


class StatesOf:
    """Stands in for the object states of a run: as many objects as asked for."""

    def __init__(self, names: List[str]) -> None:
        self.resource = "prompts"
        self.project = "Support"
        self.outcomes = {
            f"id-{number}": ObjectOutcome(name, "created", dest_id=f"new-{number}")
            for number, name in enumerate(names)
        }


def test_the_placeholder_of_a_planned_object_is_no_id_of_the_destination() -> None:
    states = StatesOf(["new", "there"])
    states.outcomes["id-0"] = ObjectOutcome("new", "planned", dest_id="planned:0")
    assert [row[4] for row in object_rows(states)] == ["", "new-1"]


class RunWith:
    """A run of which the page only needs the path and the object states."""

    def __init__(self, path: Path, names: List[str]) -> None:
        self.path = path
        self.names = names
        self.record = SimpleNamespace(undone=None)

    def all_objects(self) -> List[StatesOf]:
        return [StatesOf(self.names)]


def drawn(page: str, folder: Path) -> str:
    """Returns the document as Chromium has it after the script of the page ran."""
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    path = folder / "report.html"
    path.write_text(page, encoding="ascii")
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *HEADLESS, profile, path.as_uri()],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout.partition('<main id="main">')[2]


def test_the_page_of_a_real_run_has_the_numbers_of_its_report(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        run(pair.sandbox, tmp_path / "state")
    path = runs(tmp_path / "state")[-1]
    written = report(tmp_path / "state")
    page = page_html(RunDirectory(path), written, NO_URLS)
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)[0])
    assert data["report"] == json.loads(json.dumps(written))
    assert len(data["objects"]) == sum(written["totals"]["objects"].values())


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = page_html(RunWith(tmp_path, []), report_with(), NO_URLS)
    assert re.findall(r"""(?:src|href)=["']?[a-z]+:""", page) == []
    assert "default-src 'none'" in page
    assert page.isascii()


def test_embedded_json_cannot_end_its_element() -> None:
    text = embedded({"name": NASTY, "other": "</script>\u2028\ud800"})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"name": NASTY, "other": "</script>\u2028\ud800"}


def test_a_name_is_drawn_as_text(tmp_path: Path) -> None:
    page = page_html(RunWith(tmp_path, [NASTY]), report_with(), NO_URLS)
    shown = drawn(page, tmp_path)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; \\u202egnp.exe \\u001b[31m" in shown
    assert "\u202e" not in shown.partition('<script type="application/json"')[0]


def cpu_of_children_s() -> float:
    """Seconds of CPU that programs which have ended took, which no other program changes."""
    used = os.times()
    return used.children_user + used.children_system


def test_ten_thousand_objects_open_in_two_seconds(tmp_path: Path) -> None:
    finding = {"kind": "waits", "severity": "action", "about": "waits", "next": "move it"}
    findings = [{**finding, "resource": "prompts", "name": f"p{n}"} for n in range(5000)]
    names = [f"prompt {number}" for number in range(10_000)]
    small = page_html(RunWith(tmp_path, ["a"]), report_with(), NO_URLS)
    large = page_html(RunWith(tmp_path, names), report_with(findings=findings), NO_URLS)
    seconds = []
    for page in (small, large):
        begun = cpu_of_children_s()
        assert "Objects" in drawn(page, tmp_path)
        seconds.append(cpu_of_children_s() - begun)
    # The start of the browser, which the small page shows, is not the page's.
    assert seconds[1] - seconds[0] < OPENS_S


def test_a_printed_page_cuts_no_column(tmp_path: Path) -> None:
    finding = {
        "kind": "user_without_counterpart", "severity": "action", "about": "lacks a user",
        "next": "invite the user, or add --invite-users, then run the same command again",
        "resource": "project_automations", "name": "Every morning", "project": "Support",
        "path": "config.action.user_id", "count": 3,
        "detail": "left.the.company@acme.example is not a member of the counterpart everywhere",
    }  # fmt: skip
    page = page_html(RunWith(tmp_path, ["a"]), report_with(findings=[finding]), NO_URLS)
    # Of a word that the edge cuts, only the part on the page is text.
    words = printed(page.replace("<style>", "<style>@page { size: A4; }"), tmp_path).split()
    assert {"member", "counterpart", "everywhere"} <= set(words), words


def printed(page: str, folder: Path) -> str:
    """Returns the text of the page as Chromium prints it."""
    if CHROMIUM is None or shutil.which("pdftotext") is None:
        pytest.skip("needs chromium and pdftotext")
    path = folder / "report.html"
    path.write_text(page, encoding="ascii")
    options = [option for option in HEADLESS if option != "--dump-dom"]
    places = [f"--print-to-pdf={folder / 'page.pdf'}", f"--user-data-dir={folder / 'profile'}"]
    command = [str(CHROMIUM), *options, *places, path.as_uri()]
    subprocess.run(command, capture_output=True, timeout=TIME_LIMIT_S, check=True)
    text = ["pdftotext", str(folder / "page.pdf"), "-"]
    return subprocess.run(text, capture_output=True, text=True, check=True).stdout


def test_links_lead_to_the_user_interface(tmp_path: Path) -> None:
    urls = {"source": "https://app.example", "destination": "https://other.example/"}
    place = {"resource": "prompts", "project": "Support", "id": "id-0", "name": "a"}
    finding = {**place, "kind": "waits", "severity": "action", "next": "move it"}
    problem = {**place, "outcome": "failed", "reason": "answered 400"}
    selection = {**report_with()["selection"], "rename_projects": {"Old": "Support"}}
    shown_report = report_with(findings=[finding], problems=[problem], selection=selection)
    page = page_html(RunWith(tmp_path, ["a"]), shown_report, urls)
    shown = drawn(page, tmp_path)
    # of the object, of the finding about it, and of the failure
    assert shown.count('href="https://app.example/app/acme/p/Old"') == 3
    assert shown.count('href="https://other.example/app/globex/p/Support"') == 3


def test_the_page_shows_the_verification_by_day_the_planned_rows_and_the_settings(
    tmp_path: Path,
) -> None:
    days = {"rows of logs": {"2026-01-02": {"match": 4711}, "": {"missing": 1}}}
    planned = {"id": "i", "project": "p", "name": "evaluated", "rows_there": 0, "bytes": 5e6}
    written = report_with(
        verification={"text": "NOT EQUAL", "kinds": {}, "days": days},
        settings={"MIGRATION_READ_STREAMS": "4"},
        dry_run=True,
        estimate=ESTIMATE,
        planned_streams=[{"kind": "experiments", "objects": [{**planned, "rows": 1234}]}],
    )
    page = page_html(RunWith(tmp_path, []), written, NO_URLS)
    shown = " ".join(re.sub(r"<[^>]+>", " ", drawn(page, tmp_path)).split())
    for words in (
        "2026-01-02 rows of logs 4,711 match 4,711", "no readable date", "missing 1",
        "evaluated 1,234 0 5.0 MB", "MIGRATION_READ_STREAMS 4",
    ):  # fmt: skip
        assert words in shown, words


@pytest.mark.parametrize(
    ("fields", "colour", "words"),
    [
        ({}, "good", "has arrived"),
        ({"dry_run": True}, "new", "is a plan"),
        ({"dry_run": True, "status": "incomplete"}, "warn", "is a plan"),
        ({"status": "incomplete"}, "bad", "did not"),
        ({"status": "interrupted"}, "warn", "run the next command"),
        ({"verification": {"text": "equal"}}, "good", "Verification: equal."),
    ],
)
def test_the_page_shows_the_verdict_for_each_status(
    fields: Dict[str, Any], colour: str, words: str
) -> None:
    found = verdict(report_with(**fields))
    assert (found["colour"], words in found["text"]) == (colour, True)


def test_the_page_of_an_undone_run_says_so() -> None:
    assert "was undone" in verdict(report_with(), {"started": "2026-01-01T00:00:00Z"})["text"]


POINT = {"t": 1.0, "rows": 5, "limited": 0, "retries": 0, "paused": False}


def test_a_timeline_is_read_and_a_cut_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "timeline.jsonl"
    assert read_timeline(path) == []
    path.write_text(json.dumps(POINT) + "\n" + json.dumps(POINT)[:20])
    assert read_timeline(path) == [POINT]


def test_damaged_lines_of_a_timeline_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "timeline.jsonl"
    path.write_text(
        "{}\n[]\n" + json.dumps(POINT)[:9] + json.dumps(POINT) + "\n" + json.dumps(POINT)
    )
    assert read_timeline(path) == [POINT]


def test_a_long_timeline_is_thinned_and_keeps_its_end(tmp_path: Path) -> None:
    path = tmp_path / "timeline.jsonl"
    path.write_text("".join(json.dumps({**POINT, "rows": n}) + "\n" for n in range(9000)))
    points = read_timeline(path)
    assert (len(points) <= 2001, points[-1]["rows"]) == (True, 8999)


def bin_report(pair: Pair, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bt_migrate.phases.report", *arguments]
    env = environment(pair.sandbox)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIME_LIMIT_S)


def test_bin_report_writes_the_page_again(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        run(pair.sandbox, tmp_path / "state")
        path = runs(tmp_path / "state")[-1]
        (path / "report.html").unlink()
        done = bin_report(pair, str(tmp_path / "state"))
    assert (done.returncode, done.stdout.strip()) == (0, str(path / "report.html"))
    assert "has arrived" in (path / "report.html").read_text(encoding="ascii")


def test_bin_report_of_a_killed_run_says_that_it_was_interrupted(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        run(pair.sandbox, tmp_path / "state")
        path = runs(tmp_path / "state")[-1]
        (path / "migration_report.json").unlink()
        done = bin_report(pair, str(path), "--json")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "interrupted")


def test_bin_report_without_a_run_prints_one_line(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        done = bin_report(pair, str(tmp_path / "none"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_the_page_names_at_its_top_what_only_the_comparison_found(tmp_path: Path) -> None:
    lost = {"outcome": "missing", "resource": "prompts", "project": "p", "id": "i", "name": "lost"}
    later = {**lost, "id": "j", "name": "later", "changed_since_copy": True}
    compared = {"text": "NOT EQUAL", "kinds": {}, "differences": [lost, later]}
    written = report_with(verification=compared, status="incomplete")
    shown = drawn(page_html(RunWith(tmp_path, []), written, NO_URLS), tmp_path)
    (section,) = re.findall(r'<section id="differing".*?</section>', shown, re.DOTALL)
    assert ("prompts 'lost' in p" in section, "later" in section) == (True, False)
