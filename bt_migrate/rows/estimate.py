"""How much the rows are and what reading and writing them takes, found out before anything is written.

Rows are counted by aggregate queries; bytes are estimated from the first rows of a few objects; time from the pages that were
read for that and the query rate that is known. A stream is what the copy reads together: one object, or several small ones.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional, Sequence

from bt_migrate.api.throttle import STARTER_QUERIES_PER_MINUTE
from bt_migrate.errors import ApiError
from bt_migrate.model.findings import FAILURE
from bt_migrate.model.notes import FindingCounts, stream_findings
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.count import count_objects, count_rows
from bt_migrate.rows.encode import RowEncoder
from bt_migrate.rows.prefetch import LARGE_STREAMS_AT_ONCE
from bt_migrate.rows.read import one_page
from bt_migrate.rows.streams import RowStream, bounds_of, groups

log = logging.getLogger("bt_migrate.validate")

SAMPLED_OBJECTS = 3  # of each kind in a dry run, those with most rows: one page of the first, a short one of the others
SHORT_SAMPLE_ROWS = 50
HOW = (
    "rows: counted by the servers; bytes: mean of the first rows of up to 3 objects of a kind, times the rows that the destination"
    " does not have yet by count, without the bytes of attachments; queries: pages of rows; seconds: queries at the measured time of"
    " a page or at the known rate, whichever is longer (inserts run beside the reading)"
)


@dataclass
class Sample:
    """The first rows of some objects of a kind: how large rows are, what is to be told of them, how long a page takes."""

    rows: int = 0
    bytes: int = 0
    attachments: int = 0
    page_seconds: float = 0.0
    findings: List[Dict[str, Any]] = field(default_factory=list)
    row_bytes: Dict[str, float] = field(default_factory=dict)  # object id -> mean

    @property
    def mean(self) -> float:
        """Bytes of a row."""
        return self.bytes / self.rows if self.rows else 0.0


def plan_rows(
    catalog: Catalog, kind_name: str, objects: Sequence[Dict[str, Any]]
) -> Dict[str, Any]:
    """{"streams": [...], "findings": [...], "page_seconds", "attachments"}: everything of a kind that the copy will read; in a round of
    a sync what is new.

    A stream: kind, objects [{project, id, name, rows, rows_there, bytes}], rows, bytes, import_bytes, queries, inserts. Rows are
    None where the server does not count.
    """
    count_objects(catalog, kind_name, objects)
    sample = _sample(catalog, kind_name, objects)
    for one in objects:
        one["bytes"] = int((one["rows"] or 0) * sample.row_bytes.get(one["id"], sample.mean))
    streams = [
        _stream(catalog, kind_name, group, sample) for group in _groups(catalog, kind_name, objects)
    ]
    rows = shown_count(total(streams, "rows"))
    log.info(
        "rows of %s: %s in %d objects",
        kind_name,
        rows,
        len(objects),
        extra={"event": "planned_rows"},
    )
    share = sample.attachments / sample.rows if sample.rows else 0.0
    return {
        "streams": streams,
        "findings": sample.findings,
        "page_seconds": round(sample.page_seconds, 3),
        "attachments": round(share * (total(streams, "rows") or 0)),
    }


def counted(objects: Iterable[Dict[str, Any]]) -> List[Dict[str, Any]]:
    return [{**_named(one), "rows": one["rows"]} for one in objects if one["rows"] is not None]


def _named(one: Dict[str, Any]) -> Dict[str, Any]:
    return {name: one[name] for name in ("project", "id", "name")}


# -- sampling


def _sample(catalog: Catalog, kind_name: str, objects: Sequence[Dict[str, Any]]) -> Sample:
    """Read the first rows of the objects with most rows, and make them ready to be sent."""
    sample, outgoing = Sample(), RowEncoder(catalog, ROW_KINDS[kind_name])
    largest = sorted(
        (one for one in objects if one["rows"] != 0), key=lambda one: -(one["rows"] or 0)
    )
    for number, one in enumerate(largest[: SAMPLED_OBJECTS if catalog.settings.dry_run else 1]):
        limit = SHORT_SAMPLE_ROWS if number else catalog.settings.rows(kind_name).fetch_limit
        started = time.monotonic()
        try:
            answer = one_page(
                catalog.source,
                kind_name,
                one["id"],
                bounds_of(catalog, ROW_KINDS[kind_name]),
                limit,
            )
        except ApiError as error:
            log.info("rows of %s %r were not sampled: %s", kind_name, one["name"], error)
            continue
        sample.page_seconds = max(sample.page_seconds, time.monotonic() - started)
        notes = FindingCounts()
        rows = [
            outgoing.encoded(row, one["id"], notes, plain=answer.plain)[0] for row in answer.json
        ]
        size = sum(
            len(row.body) + sum(len(content) for _, _, content in row.spills) for row in rows
        )
        sample.row_bytes[one["id"]] = size / len(rows) if rows else 0.0
        sample.rows, sample.bytes = sample.rows + len(rows), sample.bytes + size
        sample.attachments += sum(len(row.attachments) for row in rows)
        header = {**one, "kind": kind_name, "source_id": one["id"]}
        told = [
            {**record, "sampled": len(rows)} for record in stream_findings(header, notes.records())
        ]
        sample.findings += [
            record for record in told if record["severity"] != FAILURE
        ]  # what it refers to may still be made
    return sample


# -- streams


def _groups(
    catalog: Catalog, kind_name: str, objects: Sequence[Dict[str, Any]]
) -> List[List[Dict[str, Any]]]:
    """The objects as the copy reads them together."""
    by_id = {one["id"]: one for one in objects}
    kind = ROW_KINDS[kind_name]
    streams = [
        RowStream(kind, one["project"], one["id"], one["dest_id"], one["name"], not one["dest_id"])
        for one in objects
    ]
    return [
        [by_id[stream.source_id] for stream in group]
        for group in groups(streams, catalog.settings.read_streams)
    ]


def _stream(
    catalog: Catalog, kind_name: str, group: Sequence[Dict[str, Any]], sample: Sample
) -> Dict[str, Any]:
    settings = catalog.settings.rows(kind_name)
    if all(one["rows"] is not None for one in group):
        rows: Optional[int] = sum(one["rows"] for one in group)
        size, new = sum(one["bytes"] for one in group), sum(_new_bytes(one) for one in group)
        new_rows = sum(max(0, one["rows"] - (one["rows_there"] or 0)) for one in group)
    else:
        rows = count_rows(catalog, kind_name, [one["id"] for one in group])
        new_rows = max(0, (rows or 0) - sum(one["rows_there"] or 0 for one in group))
        size, new = int((rows or 0) * sample.mean), int(new_rows * sample.mean)
    there = [one for one in group if one["dest_id"]]
    queries = _pages(rows, settings.fetch_limit) + sum(
        _pages(one["rows_there"], settings.fetch_limit) for one in there
    )
    inserts = max(
        math.ceil(new_rows / settings.insert_batch_size), math.ceil(new / settings.max_batch_bytes)
    )
    told = [
        {**_named(one), "rows": one["rows"], "rows_there": one["rows_there"], "bytes": one["bytes"]}
        for one in group
    ]
    amounts = {
        "rows": rows,
        "bytes": size,
        "import_bytes": new,
        "queries": queries,
        "inserts": inserts,
    }
    return {"kind": kind_name, "objects": told, **amounts}


def _pages(rows: Optional[int], limit: int) -> int:
    return max(1, math.ceil((rows or 0) / limit))


def _new_bytes(one: Dict[str, Any]) -> int:
    """Bytes of the rows that the destination does not have yet, by count."""
    return (
        int(one["bytes"] * max(0, one["rows"] - (one["rows_there"] or 0)) / one["rows"])
        if one["rows"]
        else 0
    )


def total(streams: Iterable[Dict[str, Any]], name: str) -> Optional[int]:
    """The sum of what is known; None where nothing is."""
    known = [one[name] for one in streams if one[name] is not None]
    return sum(known) if known else None


def shown_count(count: Optional[int]) -> str:
    return "an unknown number" if count is None else f"{count:,}"


# -- time


def estimate(catalog: Catalog, kinds: Dict[str, Dict[str, Any]]) -> Dict[str, Any]:
    """What the rows of all kinds take together, and how that was found; adds the seconds to each stream."""
    rate = catalog.source.throttle.queries_per_minute
    for of_kind in kinds.values():
        for stream in of_kind["streams"]:
            stream["seconds"] = round(
                stream["queries"] * max(of_kind["page_seconds"], 60 / rate if rate else 0.0), 1
            )
    streams = [stream for of_kind in kinds.values() for stream in of_kind["streams"]]
    queries = total(streams, "queries") or 0
    reading = sum(
        stream["queries"] * of_kind["page_seconds"]
        for of_kind in kinds.values()
        for stream in of_kind["streams"]
    )
    at_once = min(LARGE_STREAMS_AT_ONCE, catalog.settings.max_concurrent)
    longest = max((stream["seconds"] for stream in streams), default=0.0)
    seconds = max(reading / at_once, longest, queries * 60 / rate if rate else 0.0)
    return {
        "rows": total(streams, "rows") or 0,
        "uncounted_streams": sum(stream["rows"] is None for stream in streams),
        "bytes": total(streams, "bytes") or 0,
        "processed_bytes": total(streams, "import_bytes") or 0,
        "attachments": sum(of_kind["attachments"] for of_kind in kinds.values()),
        "queries": queries,
        "inserts": total(streams, "inserts") or 0,
        "queries_per_minute": rate,
        "seconds": round(seconds, 1),
        "minutes_at_20_queries_a_minute": round(queries / STARTER_QUERIES_PER_MINUTE, 1),
        "how": HOW,
    }
