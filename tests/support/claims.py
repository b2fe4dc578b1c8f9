"""What a run directory says is done, checked against the organizations themselves."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, List

from tests.support.compare_orgs import NATURAL_KEYS, Translation, streams, unequal_row
from tests.support.orgs import Json, Pair


def untrue_claims(pair: Pair, run: Any) -> List[str]:
    """What a run directory says is done and is not."""
    translation = Translation(pair)
    problems = []
    there = {obj["id"] for kind in NATURAL_KEYS for obj in pair.dest.objects(kind)}
    there |= {
        f"{obj['id']}:{slug}"
        for kind in ("prompt", "function")
        for obj in pair.dest.objects(kind)
        for slug in pair.dest.assignments(obj["id"])
    }
    for path in sorted(run.glob("*/*_state.json")):
        states = json.loads(path.read_text(encoding="utf-8"))
        for entry in states.get("outcomes", {}).values():
            if (
                entry["outcome"] in ("created", "found", "updated")
                and entry.get("dest_id") not in there
            ):
                problems.append(
                    f"{states['resource']} {entry['name']!r} is {entry['outcome']}, and not there"
                )
    return problems + _untrue_rows(translation, run)


def _untrue_rows(translation: Translation, run: Any) -> List[str]:
    problems = []
    equal = {
        source["id"] + kind: _equal_rows(translation, kind, source, dest)
        for kind, source, dest in streams(translation)
    }
    for path in [*run.glob("*/logs_state.json"), *run.glob("*/*_events/*_state.json")]:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state.get("replay") in ("begun", "waits"):
            continue  # The counts are of an earlier state; the next start begins with it again.
        kind = {"logs": "project_logs", "experiments": "experiment", "datasets": "dataset"}[
            state["header"]["kind"]
        ]
        claimed = sum(state["counts"][name] for name in ("created", "found", "updated"))
        # Rows that arrived without something are counted as created, and reported too.
        claimed -= max(
            state["waiting"],
            _waiting(path.with_name(path.name.replace("_state.json", "_seen.sqlite3"))),
        ) + sum(
            finding["count"]
            for finding in state["findings"]
            if finding["kind"]
            in ("attachment_missing", "attachment_not_copied", "unresolved_reference")
        )
        arrived = equal.get(state["header"]["source_id"] + kind, 0)
        if claimed > arrived:
            problems.append(
                f"{claimed} rows of {kind} {state['header']['name']!r} are claimed, {arrived} "
                "are there"
            )
    return problems


def _waiting(seen: Path) -> int:
    """Rows of a stream that wait for an object; its checkpoint counts them at its end."""
    return len(set(stored_ids(seen, "deferred")))


def stored_ids(seen: Path, table: str, where: str = "1") -> List[str]:
    """Row ids that a table of a seen store holds; read from a copy, to leave it as it is."""
    with tempfile.TemporaryDirectory() as folder:
        for part in seen.parent.glob(seen.name + "*"):
            shutil.copy(part, folder)
        with contextlib.closing(sqlite3.connect(str(Path(folder, seen.name)))) as database:
            if not database.execute(
                "select 1 from sqlite_master where name = ?", (table,)
            ).fetchone():
                return []
            return [row[0] for row in database.execute(f"select id from {table} where {where}")]


def _equal_rows(translation: Translation, kind: str, source: Json, dest: Json) -> int:
    found = {row["id"]: row for row in translation.pair.dest.rows(kind, dest["id"])}
    rows = translation.pair.source.rows(kind, source["id"])
    return sum(
        row["id"] in found and not unequal_row(translation, kind, row, found[row["id"]])
        for row in rows
    )
