"""Reads the first rows of some objects, for the plan of a copy.

They say how large rows are, what they hold that cannot move, and what else they cost.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence

from bt_migrate.api.btql import OBJECTS_PER_QUERY
from bt_migrate.api.request import Answer
from bt_migrate.errors import ApiError
from bt_migrate.model.findings import FAILURE
from bt_migrate.model.notes import FindingCounts, stream_findings
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.batches import EncodedRow
from bt_migrate.rows.encode import RowEncoder
from bt_migrate.rows.read import first_rows, one_page
from bt_migrate.rows.streams import bounds_of

log = logging.getLogger("bt_migrate.validate")

# How many objects of each kind a dry run samples, those with most rows: a full page of the first
# one, a short page of the others.
SAMPLED_OBJECTS = 3
SHORT_SAMPLE_ROWS = 50


@dataclass
class Extras:
    """How many of `rows` cost requests of their own: rows with comments, and for each later phase
    the rows that refer to its objects.
    """

    rows: int = 0
    commented: int = 0
    late: Counter[str] = field(default_factory=Counter)

    def share(self, count: int) -> float:
        return count / self.rows if self.rows else 0.0

    def plus(self, other: Extras) -> Extras:
        both = self.rows + other.rows, self.commented + other.commented
        return Extras(*both, self.late + other.late)


@dataclass
class Sample:
    """What the first rows of some objects of a kind show.

    `row_bytes`: object id -> mean bytes of a row. `extras`: the same for the `Extras` of its rows;
    "": those of all rows.
    """

    queries: int = 0
    rows: int = 0
    bytes: int = 0
    attachments: int = 0
    # of the slowest page, and of the fastest one, which stands for a query that reads few rows
    page_seconds: float = 0.0
    query_seconds: float = 0.0
    cpu_seconds: float = 0.0
    findings: List[Dict[str, Any]] = field(default_factory=list)
    row_bytes: Dict[str, float] = field(default_factory=dict)
    extras: Dict[str, Extras] = field(default_factory=lambda: {"": Extras()})

    @property
    def mean(self) -> float:
        """Returns the mean bytes of a row."""
        return self.bytes / self.rows if self.rows else 0.0

    @property
    def row_seconds(self) -> float:
        """Returns the mean processor seconds for decoding and encoding a row."""
        return self.cpu_seconds / self.rows if self.rows else 0.0


def read_sample(catalog: Catalog, kind_name: str, objects: Sequence[Dict[str, Any]]) -> Sample:
    """Read and encode the first rows of the objects with most rows."""
    sample = Sample()
    encoder = RowEncoder(catalog, ROW_KINDS[kind_name])
    with_rows = [planned for planned in objects if planned["rows"] != 0]
    largest = sorted(with_rows, key=lambda planned: -(planned["rows"] or 0))
    count = SAMPLED_OBJECTS if catalog.settings.dry_run else 1
    limit = catalog.settings.rows(kind_name).fetch_limit
    for planned in largest[:count]:
        started = time.monotonic()
        started_cpu = time.thread_time()
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
            sample.queries += 1
            seconds = time.monotonic() - started
            sample.page_seconds = max(sample.page_seconds, seconds)
            sample.query_seconds = min(sample.query_seconds or seconds, seconds)
            _add_page(sample, encoder, kind_name, planned, answer)
            sample.cpu_seconds += time.thread_time() - started_cpu
        limit = SHORT_SAMPLE_ROWS
    rest = [planned["id"] for planned in largest[count : count + OBJECTS_PER_QUERY]]
    if rest and catalog.settings.dry_run:
        _add_extras_of(sample, encoder, catalog, kind_name, rest)
    return sample


def _add_extras_of(
    sample: Sample, encoder: RowEncoder, catalog: Catalog, kind_name: str, object_ids: List[str]
) -> None:
    """Read the first rows of these objects with one query, only for their extras.

    Comments and references are often in few of many small objects.
    """
    kind = ROW_KINDS[kind_name]
    limit = catalog.settings.rows(kind_name).fetch_limit
    sample.queries += 1
    try:
        answer = first_rows(catalog.source, kind_name, object_ids, bounds_of(catalog, kind), limit)
    except ApiError as error:
        log.info("%s: rows of small objects were not sampled: %s", kind_name, error)
        return
    rows_of: Dict[str, List[EncodedRow]] = {}
    for row in answer.json:
        object_id = str(row.get(kind.id_field)) if len(object_ids) > 1 else object_ids[0]
        row, _ = encoder.encoded(row, object_id, FindingCounts(), plain=answer.plain)
        rows_of.setdefault(object_id, []).append(row)
    for object_id, rows in rows_of.items():
        _add_extras(sample, encoder, object_id, rows)


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
    _add_extras(sample, encoder, planned["id"], rows)
    sample.rows += len(rows)
    sample.bytes += size
    sample.attachments += sum(len(row.attachments) for row in rows)
    header = {**planned, "kind": kind_name, "source_id": planned["id"]}
    for record in stream_findings(header, notes.records()):
        # A failure is not reported yet: the object that the row refers to may still be created.
        if record["severity"] != FAILURE:
            sample.findings.append({**record, "sampled": len(rows)})


def _add_extras(
    sample: Sample, encoder: RowEncoder, object_id: str, rows: Sequence[EncodedRow]
) -> None:
    extras = Extras(
        len(rows),
        sum(bool(row.comments) for row in rows),
        Counter(phase for row in rows for phase in encoder.late_phases(row)),
    )
    sample.extras[object_id] = extras
    sample.extras[""] = sample.extras[""].plus(extras)
