"""Estimates the rows, bytes, queries and time of a whole move from the plans of its rows.

Time is estimated from the pages that were read for the plans, and from the query rate where it is
known.
"""

from __future__ import annotations

import heapq
from dataclasses import asdict
from typing import Any, Dict, Iterable, Mapping, NamedTuple, Optional, Sequence

from bt_migrate.api.throttle import STARTER_QUERIES_PER_MINUTE
from bt_migrate.model.resource_table import DATASETS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.report.measures import limited_seconds
from bt_migrate.rows.planned_rows import total
from bt_migrate.rows.planned_states import PlannedStates
from bt_migrate.rows.prefetch import LARGE_STREAMS_AT_ONCE

# What the run directory takes on disk, as measured: the log and the report, the record of a
# delivered row, and what is kept of an object.
STATE_BYTES = 130_000
STATE_BYTES_OF_ROW = 150
STATE_BYTES_OF_OBJECT = 4_000
# CPU time of a row besides that of decoding and encoding it once, which is measured: to copy it,
# and to compare it on both sides, where it is also decoded and encoded several times.
COPY_ROW_S = 40e-6
COMPARE_ROW_S = 90e-6
COMPARE_CODINGS = 4
# What the times of a page and of a request do not contain, as measured: requests for an object on
# both sides and for one of its versions, and the least time of one of them.
REQUESTS_OF_OBJECT = 5
REQUESTS_OF_VERSION = 3
LEAST_REQUEST_S = 0.003
# How many times a whole move takes as long as listing and counting did in the validation: it does
# so again itself, to find what exists, and to compare both sides.
LISTINGS = 4.5
START_S = 1.5
HOW = (
    "rows: counted by the servers; bytes: mean size of the first rows of up to 3 objects of a kind,"
    " times the rows that the destination does not have yet by count, without the bytes of"
    " attachments; queries: pages of rows, and what earlier states of datasets need; seconds:"
    " queries at the measured time of a page or at the known rate, or the processor time of the"
    " rows, whichever is longest (inserts run while pages are read); whole_seconds: validation,"
    " objects, copy and verification"
)


class Listed(NamedTuple):
    """What the validation listed: objects, the seconds for listing and counting, the queries that a
    real run sends for that too, and the earlier versions of prompts and functions that move: of all
    of them, and of the one with most.
    """

    objects: int
    seconds: float
    queries: int = 0
    versions: int = 0
    most_versions: int = 0


def estimate(
    catalog: Catalog, kinds: Dict[str, Dict[str, Any]], listed: Optional[Listed] = None
) -> Dict[str, Any]:
    """Returns the estimate for the rows of all kinds; adds the seconds to each stream."""
    rate = catalog.source.throttle.queries_per_minute
    for planned in kinds.values():
        for stream in planned["streams"]:
            pages_s = stream["queries"] * planned["page_seconds"]
            stream["seconds"] = round(max(pages_s, limited_seconds(stream["queries"], rate)), 1)
    streams = [stream for planned in kinds.values() for stream in planned["streams"]]
    states = _states_of(kinds)
    deletes = {kind: plan["deletes"] for kind, plan in kinds.items()}
    merges = sum(plan["merges"] for plan in kinds.values())
    listed = listed or Listed(0, 0.0)
    state_bytes = _state_bytes(catalog, streams, listed.objects)
    queries = {
        "validation_queries": listed.queries,
        "queries": (total(streams, "queries") or 0) + _sum(states, deletes, "queries"),
        "verification_queries": sum(plan["verification_queries"] for plan in kinds.values()),
    }
    copy_s = max(_copy_seconds(catalog, kinds), limited_seconds(queries["queries"], rate))
    compare_s = sum(_compare_seconds(catalog, plan) for plan in kinds.values())
    whole_s = START_S + _objects_seconds(catalog, listed) + copy_s + compare_s
    return {
        "rows": total(streams, "rows") or 0,
        "uncounted_streams": sum(stream["rows"] is None for stream in streams),
        "bytes": total(streams, "bytes") or 0,
        "processed_bytes": (total(streams, "import_bytes") or 0) + states["bytes"],
        "attachments": sum(planned["attachments"] for planned in kinds.values()),
        "inserts": (total(streams, "inserts") or 0) + _sum(states, deletes, "inserts") + merges,
        "earlier_states": {name: states[name] for name in ("states", "rows", "deletes")},
        "deletes": _shown_deletes(deletes),
        **queries,
        "state_bytes": state_bytes + states["rows"] * STATE_BYTES_OF_ROW,
        "queries_per_minute": rate,
        "seconds": round(copy_s, 1),
        "whole_seconds": round(max(whole_s, limited_seconds(sum(queries.values()), rate)), 1),
        "minutes_at_20_queries_a_minute": round(queries["queries"] / STARTER_QUERIES_PER_MINUTE, 1),
        "how": HOW,
    }


def _shown_deletes(deletes: Mapping[str, Mapping[str, int]]) -> Dict[str, Dict[str, int]]:
    """Returns the counts of the kinds of which rows are gone."""
    names = ("rows", "waiting", "too_many")
    counts = {kind: {name: planned[name] for name in names} for kind, planned in deletes.items()}
    return {kind: counted for kind, counted in counts.items() if any(counted.values())}


def _states_of(kinds: Mapping[str, Dict[str, Any]]) -> Dict[str, Any]:
    """Returns the plan of the earlier states of datasets; only datasets have such."""
    plan = kinds.get(DATASETS.name, {})
    return dict(plan.get("states") or asdict(PlannedStates()))


def _sum(states: Mapping[str, Any], deletes: Mapping[str, Mapping[str, int]], name: str) -> int:
    """Returns the queries or inserts for earlier states and for deleted rows."""
    return int(states[name]) + sum(planned[name] for planned in deletes.values())


def _copy_seconds(catalog: Catalog, kinds: Mapping[str, Dict[str, Any]]) -> float:
    """Returns the time of the copy without a limit of queries.

    Streams are read at the same time. The states of a dataset come before its rows, one after the
    other, and wait for their inserts.
    """
    parts = [stream["seconds"] for plan in kinds.values() for stream in plan["streams"]]
    request_s = max(catalog.source.throttle.request_s, LEAST_REQUEST_S)
    for plan in kinds.values():
        states = plan["states"]
        # a state has few rows, or is only counted
        query_s = max(plan["query_seconds"], request_s)
        parts.append(states["queries"] * query_s + states["inserts"] * request_s)
    rows_s: float = sum(
        ((total(plan["streams"], "rows") or 0) + plan["states"]["rows"])
        * (plan["row_seconds"] + COPY_ROW_S)
        for plan in kinds.values()
    )
    return max(seconds_at_once(parts, _at_once(catalog)), rows_s)


def _compare_seconds(catalog: Catalog, plan: Mapping[str, Any]) -> float:
    """Returns the time for comparing the rows of a kind; both sides are read at the same time."""
    at_once = min(_at_once(catalog), max(1, len(plan["streams"])))
    pages_s: float = plan["verification_queries"] * plan["page_seconds"] / at_once
    if catalog.settings.depth != "full" or not plan["verification_queries"]:
        return pages_s
    rows: int = (total(plan["streams"], "rows") or 0) + sum(plan["states"]["compared"])
    row_s: float = plan["row_seconds"] * COMPARE_CODINGS + COMPARE_ROW_S
    return max(pages_s, rows * row_s)


def _at_once(catalog: Catalog) -> int:
    """Returns how many large streams are read at the same time."""
    return min(LARGE_STREAMS_AT_ONCE, catalog.settings.max_concurrent)


def seconds_at_once(parts: Iterable[float], at_once: int) -> float:
    """Returns how long the parts take, so many of them at once, the longest first."""
    ends = [0.0] * at_once
    for seconds in sorted(parts, reverse=True):
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def _objects_seconds(catalog: Catalog, listed: Listed) -> float:
    """Returns the time for listing, counting, creating and comparing objects and their versions.

    The versions of one object are written one after the other.
    """
    request_s = max(
        catalog.source.throttle.request_s / catalog.settings.max_concurrent, LEAST_REQUEST_S
    )
    requests = listed.objects * REQUESTS_OF_OBJECT + listed.versions * REQUESTS_OF_VERSION
    in_a_row_s = listed.most_versions * REQUESTS_OF_VERSION * catalog.source.throttle.request_s
    return listed.seconds * LISTINGS + max(requests * request_s, in_a_row_s)


def _state_bytes(catalog: Catalog, streams: Sequence[Dict[str, Any]], objects: int) -> int:
    """Returns what the run directory takes.

    Rows of the last page of a stream are not recorded one by one.
    """
    rows = sum(
        max(0, (stream["rows"] or 0) - catalog.settings.rows(stream["kind"]).fetch_limit)
        for stream in streams
    )
    return STATE_BYTES + rows * STATE_BYTES_OF_ROW + objects * STATE_BYTES_OF_OBJECT
