"""What the destination refuses as it is, and whether it refused the same in the start before.

To run the same command again helps once: after the cause was fixed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Iterator, List, Mapping, Sequence

from bt_migrate.model.equality import text_digest
from bt_migrate.model.findings import FAILURE
from bt_migrate.model.outcomes import FAILED
from bt_migrate.state.run_directory import RunDirectory, readable_runs_in
from bt_migrate.state.run_record import Session
from bt_migrate.state.stream_state import StreamState

NOT_CREATED = "not_created"
ROWS_DIFFER = "row_differs"
# kinds of what does not arrive because something else did not
CONSEQUENCES = ("unresolved_reference", "waits")
# how a row was refused that can be sent with its largest fields as attachments; see rows/insert.py
TOO_LARGE = re.compile(r"\(([\d,]+) bytes, a lower MIGRATION_MAX_ROW_BYTES helps")


def refused_print(report: Mapping[str, Any]) -> str:
    """Returns a digest of what the destination refused, "" if that is nothing, or if a part of what
    did not arrive cannot be accepted.
    """
    problems = report["problems"]
    failures = [
        record for record in report.get("findings", ()) if record.get("severity") == FAILURE
    ]
    objects = {(item["resource"], item.get("id")) for item in problems if item.get("fingerprint")}
    of_rows = [record for record in failures if record["kind"] != NOT_CREATED]
    is_acceptable = (
        len(objects) == len(problems)
        and all("fingerprint" in record for record in of_rows)
        and all(rows["complete"] for rows in report.get("rows", ()))
    )
    is_refused = any(item["outcome"] == FAILED for item in problems) or any(
        record["kind"] not in (ROWS_DIFFER, *CONSEQUENCES) for record in of_rows
    )
    if not is_acceptable or not is_refused:
        return ""
    compared = (report.get("verification") or {}).get("differences", ())
    refused = [
        *objects,
        *((record["kind"], record.get("id"), record.get("count")) for record in of_rows),
        # Rows are sampled, others each time.
        *(
            (item["outcome"], item["resource"], item.get("id"))
            for item in compared
            if "row" not in item
        ),
    ]
    return text_digest(json.dumps(sorted(map(str, refused)))).hex()


def was_refused_before(run: RunDirectory, report: Mapping[str, Any]) -> bool:
    """Whether the start before the last one ended with the same."""
    refused = refused_print(report)
    return bool(refused) and refused == _print_before(run)


def _print_before(run: RunDirectory) -> str:
    """Returns the digest of the move before the last start, in this run or in the one before."""
    earlier = (
        other.record.sessions
        for other in readable_runs_in(run.path.parent)
        if other.path.name < run.path.name and other.same_pair(run.record)
    )
    moves = _moves(run.record.sessions[:-1]) or _moves(next(earlier, []))
    return moves[-1].refused if moves else ""


def _moves(sessions: Sequence[Session]) -> List[Session]:
    return [session for session in sessions if session.command.startswith("migrate-")]


def smaller_rows(run: RunDirectory) -> int:
    """Returns a limit for the size of rows with which refused ones may arrive, 0 for none.

    The files of refused rows have their sizes.
    """
    files = [stream.refused_path for stream in run.all_streams() if _refuses_large(stream)]
    lines = (line for path in files if path.exists() for line in _lines_of(path))
    sizes = [int(match[1].replace(",", "")) for match in map(TOO_LARGE.search, lines) if match]
    return max(1, min(sizes) // 2) if sizes else 0


def _lines_of(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from file


def _refuses_large(stream: StreamState) -> bool:
    refused = (note for note in stream.findings if note["kind"] == "row_refused")
    return any(note.get("detail", "").startswith("413") for note in refused)
