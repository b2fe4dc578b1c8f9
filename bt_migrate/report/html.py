"""report.html: one self-contained page about a run, made from its records alone.

The page is static; the data is embedded as JSON and drawn by the script in the page as text nodes,
so that no name can become markup. The Content-Security-Policy of the page forbids every request.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

from bt_migrate.errors import StateError
from bt_migrate.model.outcomes import DIFFERS, FAILED, WOULD_CREATE
from bt_migrate.model.resources import SELECTABLE
from bt_migrate.report.measures import deletes_text, estimate_text
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory

TIMELINE_FILE = "timeline.jsonl"
TEMPLATE = Path(__file__).with_name("page.html")
DEFAULT_APP_URL = "https://www.braintrust.dev"
DEFAULT_API_HOSTS = ("api.braintrust.dev", "api-eu.braintrust.dev")
POINT_FIELDS = ("t", "rows", "limited", "retries", "paused")
MAX_POINTS = 2000  # of the timeline, in the page
MAX_OBJECTS = 20_000  # in the page, problems first; the state files have all of them
PROBLEMS = (FAILED, DIFFERS)

# Report status -> (verdict, colour class of the page)
VERDICTS = {
    "completed": ("Everything that can be moved has arrived.", "good"),
    "incomplete": ("Something that should have arrived did not.", "bad"),
    "stopped": ("Stopped before the end; run the next command to continue.", "warn"),
    "interrupted": ("Interrupted; run the next command to continue.", "warn"),
    "running": ("Still running. This page shows the state at the time of its writing.", "new"),
    "failed": ("Ended with an error; run the next command to continue.", "bad"),
}


# The same, for a dry run.
PLANS = {
    "completed": ("This is a plan. Nothing was written to the destination.", "new"),
    "incomplete": (
        "This is a plan. Nothing was written to the destination. Not everything would arrive.",
        "warn",
    ),
}


def page_html(run: RunDirectory, report: Mapping[str, Any], app_urls: Mapping[str, str]) -> str:
    """Returns the page. `report` is that of build_report; `app_urls` are the URLs of the user
    interface by side, "" where unknown.
    """
    objects = [row for states in run.all_objects() for row in object_rows(states)]
    objects.sort(key=lambda row: row[5] not in PROBLEMS)
    estimate = report["estimate"] or {}
    data = {
        "report": report,
        "verdict": verdict(report, run.record.undone),
        "objects": objects[:MAX_OBJECTS],
        "objects_left_out": max(len(objects) - MAX_OBJECTS, 0),
        "resources": ["projects", *SELECTABLE],
        "app_urls": dict(app_urls),
        "estimate_text": estimate_text(estimate) if estimate else "",
        "deletes_text": deletes_text(estimate.get("deletes") or {}),
        "timeline": read_timeline(run.path / TIMELINE_FILE),
    }
    return TEMPLATE.read_text(encoding="utf-8").replace("@DATA@", embedded(data))


def embedded(data: Any) -> str:
    """JSON that can stand inside a script element: ASCII, without `<`, `>` and `&`."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def verdict(
    report: Mapping[str, Any], undone: Optional[Mapping[str, Any]] = None
) -> Dict[str, str]:
    """Returns the text and the colour class. `undone`: what bin/undo recorded."""
    status = report["status"]
    if undone:
        return {"text": "This run was undone. The page shows what it had done.", "colour": "none"}
    text, colour = VERDICTS.get(status, (f"Status: {status}.", "none"))
    if report["dry_run"] and status in PLANS:
        text, colour = PLANS[status]
    compared = report["verification"]
    if compared:
        text += f" Verification: {compared['text']}."
    return {"text": text, "colour": colour}


def object_rows(states: ObjectStates) -> Iterable[List[str]]:
    """Yields [resource, project, name, source id, destination id, outcome, reason] per object."""
    for source_id, entry in states.outcomes.items():
        fields = ", ".join(entry.fields)
        yield [
            states.resource,
            states.project,
            entry.name,
            source_id,
            "" if entry.outcome == WOULD_CREATE else entry.dest_id,  # a placeholder
            entry.outcome,
            f"{entry.reason} ({fields})" if fields else entry.reason,
        ]


def read_timeline(path: Path) -> List[Dict[str, Any]]:
    """Returns the points of the timeline, thinned to MAX_POINTS; [] without one.

    Lines that a kill or a full disk cut short are left out: the timeline is only a picture.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error.strerror})") from None
    points = [point for point in map(_point, lines) if point]
    step = len(points) // MAX_POINTS + 1
    return [*points[::step], *points[-1:]] if step > 1 else points


def _point(line: str) -> Dict[str, Any]:
    try:
        point = json.loads(line)
        return {name: point[name] for name in POINT_FIELDS}
    except (ValueError, KeyError, TypeError):
        return {}


def app_url(api_url: str, setting: str) -> str:
    """The URL of the user interface: the setting, or the known one of the hosted service."""
    hosted = any(f"//{host}" in api_url for host in DEFAULT_API_HOSTS)
    return setting or (DEFAULT_APP_URL if hosted else "")
