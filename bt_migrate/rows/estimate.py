"""Estimates the rows, bytes and time of a copy before anything is written.

Rows are counted by aggregate queries. Bytes are estimated from the first rows of a few objects;
time from the pages that were read for that, and from the query rate where it is known. A stream is
what the copy reads together: one large object, or several small ones.
"""

from __future__ import annotations

import heapq
import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence

from bt_migrate.api.btql import MAX_LIMIT, OBJECTS_PER_QUERY
from bt_migrate.api.request import Answer
from bt_migrate.api.throttle import STARTER_QUERIES_PER_MINUTE
from bt_migrate.errors import ApiError
from bt_migrate.model.findings import FAILURE
from bt_migrate.model.notes import FindingCounts, stream_findings
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.report.display import plural
from bt_migrate.rows.count import RowCounts, count_objects, count_rows
from bt_migrate.rows.encode import RowEncoder
from bt_migrate.rows.facets import asks_for_facets, learn_facets
from bt_migrate.rows.groups import groups
from bt_migrate.rows.prefetch import LARGE_STREAMS_AT_ONCE
from bt_migrate.rows.read import one_page
from bt_migrate.rows.streams import RowStream, bounds_of
from bt_migrate.rows.sync_plan import leave_out_delivered

log = logging.getLogger("bt_migrate.validate")

# How many objects of each kind a dry run samples, those with most rows: a full page of the first
# one, a short page of the others.
SAMPLED_OBJECTS = 3
SHORT_SAMPLE_ROWS = 50
# How a comparison reads a sample: smaller objects share a query, up to this many rows; of a larger
# one, ids are read at so many places of its key range, and rows are looked up by so many ids.
ROWS_READ_TOGETHER = 2000
SAMPLE_PLACES = 4
IDS_PER_LOOKUP = 50
# What the run directory takes on disk, as measured: the log and the report, the record of a
# delivered row, and the checkpoint of an object.
STATE_BYTES = 350_000
STATE_BYTES_OF_ROW = 150
STATE_BYTES_OF_OBJECT = 6_000
# What the times of a page and of a request do not contain, as measured: CPU time of a copied or
# compared row, requests for an object on both sides, and the least time of one of them.
SECONDS_OF_ROW = 80e-6
REQUESTS_OF_OBJECT = 5
LEAST_REQUEST_S = 0.003
# How many times a whole move takes as long as listing and counting did in the validation: it does
# so again itself, to find what exists, and to compare both sides.
LISTINGS = 4.5
START_S = 1.5
HOW = (
    "rows: counted by the servers; bytes: mean size of the first rows of up to 3 objects of a kind,"
    " times the rows that the destination does not have yet by count, without the bytes of"
    " attachments; queries: pages of rows; seconds: queries at the measured time of a page or at"
    " the known rate, whichever is longer (inserts run while pages are read); whole_seconds:"
    " validation, objects, copy and verification"
)


# kind of rows -> its streams
Streams = Mapping[str, Sequence[Dict[str, Any]]]


class Listed(NamedTuple):
    """How many objects the validation listed, and the seconds for listing and counting."""

    objects: int
    seconds: float


@dataclass
class Sample:
    """What the first rows of some objects of a kind show.

    `row_bytes`: object id -> mean bytes of a row.
    """

    rows: int = 0
    bytes: int = 0
    attachments: int = 0
    page_seconds: float = 0.0
    findings: List[Dict[str, Any]] = field(default_factory=list)
    row_bytes: Dict[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Returns the mean bytes of a row."""
        return self.bytes / self.rows if self.rows else 0.0


def plan_rows(
    catalog: Catalog, counts: RowCounts, kind_name: str, objects: Sequence[Dict[str, Any]]
) -> Dict[str, Any]:
    """Returns {"streams", "findings", "page_seconds", "attachments"} of all rows to copy.

    In a sync, of the rows that it would send. A stream: kind, objects [{project, id, name, rows,
    rows_there, bytes}], rows, bytes, import_bytes, queries, inserts. Rows are None if the server
    does not count.
    """
    count_objects(catalog, counts, kind_name, objects)
    leave_out_delivered(catalog, counts, kind_name, objects)
    held = [planned["id"] for planned in objects if planned["rows"] != 0]
    learn_facets(catalog.source, kind_name, held, bounds_of(catalog, ROW_KINDS[kind_name]))
    sample = _sample(catalog, kind_name, objects)
    for planned in objects:
        mean = sample.row_bytes.get(planned["id"], sample.mean)
        planned["bytes"] = int((planned["rows"] or 0) * mean)
    streams = [
        _stream(catalog, kind_name, group, sample) for group in _groups(catalog, kind_name, objects)
    ]
    log.info(
        "rows of %s: %s in %s",
        kind_name,
        shown_count(total(streams, "rows")),
        plural(len(objects), "object"),
        extra={"event": "planned_rows"},
    )
    share = sample.attachments / sample.rows if sample.rows else 0.0
    return {
        "streams": streams,
        "findings": sample.findings,
        "page_seconds": round(sample.page_seconds, 3),
        "attachments": round(share * (total(streams, "rows") or 0)),
    }


def objects_counted(objects: Iterable[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Returns {project, id, name, rows} of the objects whose rows were counted."""
    return [
        {**_named(planned), "rows": planned["rows"]}
        for planned in objects
        if planned["rows"] is not None
    ]


def _named(planned: Dict[str, Any]) -> Dict[str, Any]:
    return {name: planned[name] for name in ("project", "id", "name")}


# -- sampling


def _sample(catalog: Catalog, kind_name: str, objects: Sequence[Dict[str, Any]]) -> Sample:
    """Read and encode the first rows of the objects with most rows."""
    sample = Sample()
    encoder = RowEncoder(catalog, ROW_KINDS[kind_name])
    with_rows = [planned for planned in objects if planned["rows"] != 0]
    largest = sorted(with_rows, key=lambda planned: -(planned["rows"] or 0))
    count = SAMPLED_OBJECTS if catalog.settings.dry_run else 1
    limit = catalog.settings.rows(kind_name).fetch_limit
    for planned in largest[:count]:
        started = time.monotonic()
        try:
            answer = one_page(
                catalog.source,
                kind_name,
                planned["id"],
                bounds_of(catalog, ROW_KINDS[kind_name]),
                limit,
            )
        except ApiError as error:
            log.info("%s %r: rows were not sampled: %s", kind_name, planned["name"], error)
        else:
            sample.page_seconds = max(sample.page_seconds, time.monotonic() - started)
            _add_page(sample, encoder, kind_name, planned, answer)
        limit = SHORT_SAMPLE_ROWS
    return sample


def _add_page(
    sample: Sample,
    encoder: RowEncoder,
    kind_name: str,
    planned: Dict[str, Any],
    answer: Answer,
) -> None:
    notes = FindingCounts()
    rows = [
        encoder.encoded(row, planned["id"], notes, plain=answer.plain)[0] for row in answer.json
    ]
    for row in rows:
        encoder.note_left_out(row, notes)
    size = sum(len(row.body) for row in rows)
    size += sum(len(content) for row in rows for _, _, content in row.spills)
    sample.row_bytes[planned["id"]] = size / len(rows) if rows else 0.0
    sample.rows += len(rows)
    sample.bytes += size
    sample.attachments += sum(len(row.attachments) for row in rows)
    header = {**planned, "kind": kind_name, "source_id": planned["id"]}
    for record in stream_findings(header, notes.records()):
        # A failure is not reported yet: the object that the row refers to may still be created.
        if record["severity"] != FAILURE:
            sample.findings.append({**record, "sampled": len(rows)})


# -- streams


def _groups(
    catalog: Catalog, kind_name: str, objects: Sequence[Dict[str, Any]]
) -> List[List[Dict[str, Any]]]:
    """Returns the objects in the groups in which the copy reads them."""
    by_id = {planned["id"]: planned for planned in objects}
    kind = ROW_KINDS[kind_name]
    streams = [
        RowStream(
            kind,
            planned["project"],
            planned["id"],
            planned["dest_id"],
            planned["name"],
            not planned["dest_id"],
            rows=planned["rows"],
        )
        for planned in objects
    ]
    return [
        [by_id[stream.source_id] for stream in group]
        for group in groups(streams, catalog.settings.read_streams)
    ]


class StreamSize(NamedTuple):
    """How much a stream has, and how much of it the destination lacks."""

    rows: Optional[int]
    row_bytes: int
    new_rows: int
    new_bytes: int


def _size(
    catalog: Catalog, kind_name: str, group: Sequence[Dict[str, Any]], sample: Sample
) -> StreamSize:
    """Returns the sum over the objects, or, if one was not counted, a count of all together."""
    if all(planned["rows"] is not None for planned in group):
        return StreamSize(
            sum(planned["rows"] for planned in group),
            sum(planned["bytes"] for planned in group),
            sum(max(0, planned["rows"] - (planned["rows_there"] or 0)) for planned in group),
            sum(_new_bytes(planned) for planned in group),
        )
    rows = count_rows(catalog, kind_name, [planned["id"] for planned in group])
    new_rows = max(0, (rows or 0) - sum(planned["rows_there"] or 0 for planned in group))
    row_bytes = int((rows or 0) * sample.mean)
    return StreamSize(rows, row_bytes, new_rows, int(new_rows * sample.mean))


def _stream(
    catalog: Catalog, kind_name: str, group: Sequence[Dict[str, Any]], sample: Sample
) -> Dict[str, Any]:
    size = _size(catalog, kind_name, group, sample)
    settings = catalog.settings.rows(kind_name)
    queries = _pages(size.rows, settings.fetch_limit)
    if asks_for_facets(catalog.source, kind_name, [planned["id"] for planned in group]):
        queries *= 2
    there = [planned["rows_there"] for planned in group if planned["dest_id"]]
    queries += sum(_pages(rows_there, settings.fetch_limit) for rows_there in there)
    shown = ("rows", "rows_there", "bytes")
    return {
        "kind": kind_name,
        "objects": [
            {**_named(planned), **{name: planned[name] for name in shown}} for planned in group
        ],
        "rows": size.rows,
        "bytes": size.row_bytes,
        "import_bytes": size.new_bytes,
        "queries": queries,
        "inserts": max(
            math.ceil(size.new_rows / settings.insert_batch_size),
            math.ceil(size.new_bytes / settings.max_batch_bytes),
        ),
    }


def _pages(rows: Optional[int], limit: int) -> int:
    return max(1, math.ceil((rows or 0) / limit))


def _new_bytes(planned: Dict[str, Any]) -> int:
    """Returns the bytes of the rows that the destination lacks, estimated from the row counts."""
    rows = planned["rows"]
    if not rows:
        return 0
    return int(planned["bytes"] * max(0, rows - (planned["rows_there"] or 0)) / rows)


def total(streams: Iterable[Dict[str, Any]], name: str) -> Optional[int]:
    """Returns the sum of the known values, None if none is known."""
    values = [stream[name] for stream in streams if stream[name] is not None]
    return sum(values) if values else None


def shown_count(count: Optional[int]) -> str:
    return "an unknown number" if count is None else f"{count:,}"


# -- time


def estimate(
    catalog: Catalog, kinds: Dict[str, Dict[str, Any]], listed: Optional[Listed] = None
) -> Dict[str, Any]:
    """Returns the estimate for the rows of all kinds; adds the seconds to each stream."""
    rate = catalog.source.throttle.queries_per_minute
    interval_s = 60 / rate if rate else 0.0
    for planned in kinds.values():
        for stream in planned["streams"]:
            query_s = max(planned["page_seconds"], interval_s)
            stream["seconds"] = round(stream["queries"] * query_s, 1)
    streams = [stream for planned in kinds.values() for stream in planned["streams"]]
    queries = total(streams, "queries") or 0
    at_once = min(LARGE_STREAMS_AT_ONCE, catalog.settings.max_concurrent)
    rows = total(streams, "rows") or 0
    reading_s = seconds_at_once([stream["seconds"] for stream in streams], at_once)
    seconds = max(reading_s, queries * interval_s, rows * SECONDS_OF_ROW)
    by_kind = {name: planned["streams"] for name, planned in kinds.items()}
    own_queries = {
        "validation_queries": _validation_queries(by_kind),
        "verification_queries": _verification_queries(catalog, by_kind, queries),
    }
    whole_s = _whole_seconds(catalog, seconds, listed or Listed(0, 0.0))
    return {
        "rows": rows,
        "uncounted_streams": sum(stream["rows"] is None for stream in streams),
        "bytes": total(streams, "bytes") or 0,
        "processed_bytes": total(streams, "import_bytes") or 0,
        "attachments": sum(planned["attachments"] for planned in kinds.values()),
        "queries": queries,
        "inserts": total(streams, "inserts") or 0,
        **own_queries,
        "state_bytes": _state_bytes(catalog, streams),
        "queries_per_minute": rate,
        "seconds": round(seconds, 1),
        "whole_seconds": round(max(whole_s, (queries + sum(own_queries.values())) * interval_s), 1),
        "minutes_at_20_queries_a_minute": round(queries / STARTER_QUERIES_PER_MINUTE, 1),
        "how": HOW,
    }


def seconds_at_once(parts: Iterable[float], at_once: int) -> float:
    """Returns how long the parts take, so many of them at once, the longest first."""
    ends = [0.0] * at_once
    for seconds in sorted(parts, reverse=True):
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def _whole_seconds(catalog: Catalog, copy_s: float, listed: Listed) -> float:
    """Returns the time of validation, objects, copy and verification together."""
    settings = catalog.settings
    request_s = catalog.source.throttle.request_s / settings.max_concurrent
    objects_s = listed.objects * REQUESTS_OF_OBJECT * max(request_s, LEAST_REQUEST_S)
    compares = settings.verify and settings.depth == "full"
    return START_S + listed.seconds * LISTINGS + objects_s + copy_s * (2 if compares else 1)


def _count_queries(by_kind: Streams) -> int:
    """Returns how many queries count the rows of all objects once."""
    objects = [sum(len(stream["objects"]) for stream in streams) for streams in by_kind.values()]
    return sum(math.ceil(count / OBJECTS_PER_QUERY) for count in objects)


def _validation_queries(by_kind: Streams) -> int:
    """Returns how many queries count all objects, look for facets, and read a sample of a kind."""
    sampled = sum(any(stream["rows"] for stream in streams) for streams in by_kind.values())
    return 2 * _count_queries(by_kind) + sampled


def _state_bytes(catalog: Catalog, streams: Sequence[Dict[str, Any]]) -> int:
    """Returns what the run directory takes.

    Rows of the last page of a stream are not recorded one by one.
    """
    objects = sum(len(stream["objects"]) for stream in streams)
    rows = sum(
        max(0, (stream["rows"] or 0) - catalog.settings.rows(stream["kind"]).fetch_limit)
        for stream in streams
    )
    return STATE_BYTES + rows * STATE_BYTES_OF_ROW + objects * STATE_BYTES_OF_OBJECT


def _verification_queries(catalog: Catalog, by_kind: Streams, copy_queries: int) -> int:
    """Returns how many queries the comparison sends to each side."""
    if not catalog.settings.verify:
        return 0
    counts = _count_queries(by_kind)
    if catalog.settings.depth == "full":
        return counts + copy_queries
    if catalog.settings.depth == "sample":
        return counts + sum(_sample_queries(catalog, streams) for streams in by_kind.values())
    return counts


def _sample_queries(catalog: Catalog, streams: Sequence[Dict[str, Any]]) -> int:
    """Returns how many queries compare a sample: a large object at some places, others whole."""
    objects = [planned for stream in streams for planned in stream["objects"]]
    rows: List[Optional[int]] = [planned["rows"] for planned in objects]
    small = [count for count in rows if count is not None and count <= ROWS_READ_TOGETHER]
    # The first and the last row; each side names other ids to look up.
    lookups = math.ceil(2 * catalog.settings.verify_sample / IDS_PER_LOOKUP)
    of_large = 2 + SAMPLE_PLACES + lookups
    groups_of_small = max(
        math.ceil(len(small) / OBJECTS_PER_QUERY), math.ceil(sum(small) / MAX_LIMIT)
    )
    return of_large * (len(rows) - len(small)) + groups_of_small
