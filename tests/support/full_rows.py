"""An organization with rows of every kind, and a check that each arrived exactly once.

Groups of small objects, logs that are read in slices, attachments (shared, own, one that is too
large for memory), comments, rows that
wait for later objects, rows above the request limit, and rows above the row limit, whose largest
field becomes an attachment.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from typing import Any, Dict, Iterator, List, Set, Tuple

from tests.support.compare_orgs import Translation, differences, streams
from tests.support.orgs import DEST_KEY, ROWS_OF, SOURCE_KEY, Json, Pair, WatchedSandbox

REQUEST_BYTES, ROW_BYTES = 16_000, 40_000
SETTINGS = {
    "MIGRATION_EVENTS_FETCH_LIMIT": "50",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "12",
    "MIGRATION_CHECKPOINT_INTERVAL": "2",
    "MIGRATION_READ_STREAMS": "4",
    "MIGRATION_INSERT_MAX_REQUEST_BYTES": str(REQUEST_BYTES),
    "MIGRATION_MAX_ROW_BYTES": str(ROW_BYTES),
}
OBJECTS, LOG_ROWS, ROWS = 6, (600, 150), 14
SPILLED = OBJECTS + len(LOG_ROWS)  # rows with a field that becomes an attachment


@contextlib.contextmanager
def full_pair() -> Iterator[Pair]:
    with WatchedSandbox() as sandbox:
        source, dest = (
            sandbox.add_org("acme", api_key=SOURCE_KEY),
            sandbox.add_org("globex", api_key=DEST_KEY),
        )
        fill(source)
        sandbox.max_request_bytes, sandbox.logs3_payload_max_bytes = REQUEST_BYTES, REQUEST_BYTES
        sandbox.latency = {"default": 0.006}  # so that requests are under way at the same time
        yield Pair(sandbox, source, Unspilled(dest))


def fill(org: Any) -> None:
    rng = random.Random(7)
    projects = [org.create("project", {"name": name})["id"] for name in ("big", "small/ü")]
    picture = org.attach(
        b"\x89PNG" + rng.getrandbits(8 * 3000).to_bytes(3000, "big"),
        filename="a.png",
        content_type="image/png",
    )
    movie = org.attach(
        rng.getrandbits(8 * 1_500_000).to_bytes(1_500_000, "big"),
        filename="a.mp4",
        content_type="video/mp4",
    )
    made: Dict[str, List[str]] = {"experiment": [], "dataset": []}
    for kind, ids in made.items():
        for number in range(OBJECTS):
            body = {"project_id": projects[number % 3 == 2], "name": f"{kind} {number}"}
            ids.append(org.create(kind, body)["id"])
    for kind, ids in made.items():
        for number, object_id in enumerate(ids):
            rows = [_row(rng, f"{number}-{n:03}") for n in range(ROWS)]
            _make_special(org, rows, picture, large=number % 2 == 0)
            if kind == "dataset":  # waits: experiments come after the datasets
                rows[6]["origin"] = {
                    "object_type": "experiment",
                    "object_id": made["experiment"][number],
                    "id": f"{number}-001",
                }
            org.insert(kind, object_id, rows)
            _comment(org, kind, object_id, rows)
    for project, count in zip(projects, LOG_ROWS):
        rows = [_row(rng, f"log {n:04}") for n in range(count)]
        _make_special(org, rows, picture, large=True)
        rows[count // 2]["output"] = {"movie": movie}
        for start in range(0, count, 20):
            org.insert("project_logs", project, rows[start : start + 20])
        _comment(org, "project_logs", project, rows)


def _row(rng: random.Random, row_id: str) -> Json:
    created = f"2025-10-{rng.randrange(1, 29):02}T08:30:00.{rng.randrange(1000):03}Z"
    return {
        "id": row_id,
        "created": created,
        "input": {"q": "\U0001f600 " * rng.randrange(60), "n": 2**60 + 1, "z": -0.0},
    }


def _make_special(org: Any, rows: List[Json], picture: Json, *, large: bool) -> None:
    own = org.attach(
        f"notes of {rows[3]['id']}".encode(), filename="notes.txt", content_type="text/plain"
    )
    rows[2]["metadata"] = {"see": picture}
    rows[3]["input"] = [own, {"again": picture}]
    if large:
        rows[4]["input"] = (
            "b" * 14_000
        )  # above the part of the request limit that is used: to the endpoint of the SDKs
        rows[7]["input"] = {"text": "u" * 30_000}  # above the limit itself: uploaded
        rows[9].update(
            input="s" * 50_000, metadata={"kept": True}
        )  # above the row limit: a field becomes an attachment


def _comment(org: Any, kind: str, object_id: str, rows: List[Json]) -> None:
    for number, row in enumerate(rows):
        for n in range(number % 4 == 3 and 1 + number % 3):
            org.comment(kind, object_id, row["id"], f"comment {n} of {row['id']}")


# -- what arrived


class Unspilled:
    """The destination, with spilled fields restored; a spilled file is named after its field."""

    def __init__(self, org: Any) -> None:
        self._org = org
        self.spilled: Set[str] = set()  # keys of the attachments that were met

    def __getattr__(self, name: str) -> Any:
        return getattr(self._org, name)

    def rows(self, kind: str, object_id: str) -> List[Json]:
        return [self._whole(row) for row in self._org.rows(kind, object_id)]

    def _whole(self, row: Json) -> Json:
        for name in ("input", "output", "expected", "metadata", "error"):
            value = row.get(name)
            if isinstance(value, dict) and value.get("filename") == f"{name}.json":
                self.spilled.add(value["key"])
                row = {**row, name: json.loads(self._org.attachment(value["key"]) or "null")}
        return row


def full_differences(pair: Pair) -> List[str]:
    """[] if every object, row, comment and attachment arrived as it was, and nothing twice."""
    found = [*comment_differences(pair), *differences(pair)]
    spilled = len(pair.dest.spilled)
    return found + (
        [] if spilled == SPILLED else [f"{spilled} fields became attachments instead of {SPILLED}"]
    )


def comment_differences(pair: Pair) -> Iterator[str]:
    for kind, source, dest in streams(Translation(pair)):
        sides = [
            _comments(org, kind, item["id"])
            for org, item in ((pair.source, source), (pair.dest, dest))
        ]
        label = f"{kind} {source['name']!r} row"
        for (row, text, when), count in (sides[0] - sides[1]).items():
            yield f"{label} {row!r}: {count} comment missing: {text} of {when}"
        for (row, text, when), count in (sides[1] - sides[0]).items():
            yield f"{label} {row!r}: {count} comment too many: {text} of {when}"


def _comments(org: Any, kind: str, object_id: str) -> Counter[Tuple[str, str, str]]:
    found, rows = org.comments(kind, object_id), {row["id"] for row in org.rows(kind, object_id)}
    return Counter(
        (row, entry["comment"]["text"], entry["created"])
        for row, some in found.items()
        if row in rows
        for entry in some
    )


def counts_are_right(pair: Pair, report: Json) -> bool:
    """Whether the report counts every row of the source, each as created."""
    rows = {
        kind: sum(pair.source.count(kind, obj["id"]) for obj in pair.source.objects(holder))
        for kind, holder in ROWS_OF.items()
    }
    told: Dict[str, int] = {"project_logs": 0, "experiment": 0, "dataset": 0}
    for row in report["rows"]:
        kind = {"logs": "project_logs", "experiments": "experiment", "datasets": "dataset"}[
            row["kind"]
        ]
        told[kind] += (
            row["outcomes"].get("created", 0)
            if row["fetched"] == sum(row["outcomes"].values())
            else -1
        )
    return told == rows
