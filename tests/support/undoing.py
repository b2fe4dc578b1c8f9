"""Undo as its tests use it, and a destination that was in use before the run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional

from tests.support.orgs import AtRequest, Ended, Pair, ended, environment, runs, start

SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": "40",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "15",
    "MIGRATION_CHECKPOINT_INTERVAL": "2",
}
GRAPH = {"type": "graph", "nodes": {}, "edges": {}}


class ShiftedClock:
    """The clock that a gateway shows in its answers."""

    def __init__(self, clock: Any, ahead_s: int) -> None:
        self._clock = clock
        self._ahead_s = ahead_s

    def seconds(self) -> float:
        return float(self._clock.seconds() + self._ahead_s)


def shift_dates(sandbox: Any, ahead_s: int) -> None:
    for origin in sandbox._origins:
        origin.clock = ShiftedClock(sandbox.clock, ahead_s)


def undo(pair: Any, root: Path, *args: str) -> Ended:
    """Undo the newest run; the source's key is not good any more."""
    return undo_run(pair, runs(root)[-1], *args)


def undo_run(
    pair: Any, place: Path, *args: str, at: Optional[AtRequest] = None, **settings: str
) -> Ended:
    env = environment(pair.sandbox, **{"BT_SOURCE_API_KEY": "sk-gone", **settings})
    process = start("bt_migrate.phases.undo", [str(place), *args], env, place.parent)
    if at:
        at.process = process
    pair.sandbox.on_request = at
    try:
        end = ended(process)
    finally:
        pair.sandbox.on_request = None
    assert "--json" in args or max(map(len, end.out.splitlines()), default=0) <= 80, end.out
    return replace(end, out=end.out.replace("\n    ", " "))  # without the line breaks of a screen


def planned_lines(end: Ended) -> List[str]:
    """The lines about objects and rows, without the sum."""
    lines = (line.replace("would ", "", 1) for line in end.out.splitlines())
    return [line for line in lines if re.match(r"(delete|restore|left): ", line)]


def inhabit(pair: Pair) -> None:
    """A destination that is in use: projects of its own, and some of what the source has, with the
    same content and with other.
    """
    dest = pair.dest
    alpha = dest.create("project", {"name": "Alpha/α"})["id"]
    own = dest.create("project", {"name": "own", "description": "theirs"})["id"]
    dest.patch("project", own, {"settings": {"comparison_key": "input"}})
    dest.create(
        "function", {"project_id": alpha, "name": "Mine", "slug": "scorer", "function_data": GRAPH}
    )
    dest.create("project_tag", {"project_id": alpha, "name": "red", "color": "#FF0000"})
    dest.create("prompt", {"project_id": own, "name": "Ask", "slug": "ask"})
    dest.create("ai_secret", {"name": "OTHER", "type": "openai", "secret": "typed-in-long-ago"})
    group = dest.create("group", {"name": "people"})["id"]
    dest.create(
        "acl", {"object_type": "project", "object_id": own, "group_id": group, "permission": "read"}
    )
    dest.create(
        "view",
        {"object_type": "project", "object_id": alpha, "view_type": "logs", "name": "theirs"},
    )
    _inhabit_rows(pair, alpha, own)


def _inhabit_rows(pair: Pair, alpha: str, own: str) -> None:
    dest, source = pair.dest, pair.source
    questions = dest.create("dataset", {"project_id": alpha, "name": "questions"})["id"]
    mine = next(obj["id"] for obj in source.objects("dataset") if obj["name"] == "questions")
    cases = source.rows("dataset", mine)[:10]
    same = [
        {
            name: row[name]
            for name in ("id", "input", "expected", "created", "span_id", "root_span_id")
        }
        for row in cases
    ]
    dest.insert(
        "dataset",
        questions,
        [*same[:2], {"id": cases[4]["id"], "input": "theirs"}, {"id": "theirs", "input": 1}],
    )
    first = dest.create("experiment", {"project_id": alpha, "name": "first"})["id"]
    dest.insert("experiment", first, [{"id": "e3", "output": "theirs"}])
    logs = source.rows(
        "project_logs",
        next(obj["id"] for obj in source.objects("project") if obj["name"] == "Alpha/α"),
    )
    dest.insert("project_logs", alpha, [{"id": f"theirs {i}", "input": i} for i in range(60)])
    dest.insert(
        "project_logs", alpha, [{"id": row["id"], "input": "theirs"} for row in logs[20:25]]
    )
    dest.insert("project_logs", own, [{"id": row["id"], "input": "own"} for row in logs[:5]])


def plain(found: Dict[str, Any]) -> Dict[str, Any]:
    """Settings that were never made and settings without anything are one: PATCH cannot take them
    away.
    """
    return {
        key: {**obj, "settings": obj["settings"] or None}
        if isinstance(obj, dict) and "settings" in obj
        else obj
        for key, obj in found.items()
    }


def found(org: Any, kind: str, name: str) -> Dict[str, Any]:
    return next(obj for obj in org.objects(kind) if obj["name"] == name)
