"""Benchmarks of requests: after a kill, under a rate limit, and for many small objects."""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

from harness import INSERTS, Migration, floor, idle, median_of, migrate, server, show, tell

Json = Dict[str, Any]
PAGE_S, INSERT_S, OBJECT_S = 0.15, 0.1, 0.08
OBJECTS_PER_QUERY = 25
IN_FLIGHT = 10  # MIGRATION_MAX_CONCURRENT of these runs: the default


def kill(options: argparse.Namespace) -> bool:
    """SIGKILL once the destination holds 90 % of the rows. A row is sent again if it replaces
    itself in the destination.

    In flight are the rows of inserts that were not answered at the kill, and of those answered in
    the 50 ms before it: the client has to write down what it was told.
    """
    again, starts = [], []
    with server(projects=1, logs=options.rows, latency={"btql": PAGE_S}) as source:
        for _ in range(options.runs):
            shape = {
                "name": "dest",
                "latency": {"insert": INSERT_S},
                "mark": options.rows * 9 // 10,
            }
            with server(**shape) as dest, tempfile.TemporaryDirectory() as folder:
                sent_again, in_flight, seconds = _killed_and_resumed(
                    Migration(source, dest, Path(folder)), options.rows
                )
            tell(f"{sent_again} rows sent again, {in_flight} in flight at the kill")
            again.append(sent_again / max(1, in_flight))
            starts.append(seconds - PAGE_S)
    first = show("rows sent again / rows in flight at the kill", again, 1.0)
    return (
        show(
            "start of the resumed run to its first insert, without the first page",
            starts,
            2.0,
            " s",
        )
        and first
    )


def _killed_and_resumed(migration: Migration, rows: int) -> Tuple[int, int, float]:
    """(rows sent again, rows in flight at the kill, seconds from the start of the resumed run to
    its first insert).
    """
    dest = migration.dest
    migration.start()
    assert dest.line() == "mark"
    killed = time.time()
    migration.kill()
    time.sleep(3 * INSERT_S)  # the destination finishes what it had begun
    inserts = dest.requests(*INSERTS)
    bytes_a_row = sum(request["body_bytes"] for request in inserts) / dest.ask("rows")
    open_bytes = sum(
        request["body_bytes"] for request in inserts if request["finished"] > killed - 0.05
    )
    dest.control(clear_requests=True)
    resumed = migration.start().end()
    if dest.ask("rows") != rows:
        raise SystemExit(f"{dest.ask('rows')} of {rows} rows arrived")
    first = min(request["started"] for request in dest.requests(*INSERTS))
    return dest.ask("again"), round(open_bytes / bytes_a_row), first - resumed.started


def rate(options: argparse.Namespace) -> bool:
    """110 pages at 20 queries a window: the ideal is five windows, after which the last ten pages
    may be read.

    The windows are 12 s long instead of 60, which makes what a start or a refused query costs five
    times as heavy; so the start of an idle run is taken off. --real-minute takes windows of 60 s.
    With Retry-After and without: then the text tells the rate.
    """
    window, queries, pages = 60 if options.real_minute else 12, 20, 110
    ideal = (pages - 1) // queries * window
    start = idle().wall_s
    reached = []
    with server(projects=1, logs=pages * 1000) as source:
        for told in (True, False):
            source.control(
                set={"btql_per_minute": queries, "btql_window": window, "send_retry_after": told}
            )
            ratios, refused = [], []
            for _ in range(options.runs):
                source.control(clear_requests=True)
                ratios.append((migrate(source, rows=pages * 1000).wall_s - start) / ideal)
                refused.append(
                    _most_in_a_window(
                        [
                            request["started"]
                            for request in source.requests("/btql")
                            if request["status"] == 429
                        ],
                        window,
                    )
                )
                time.sleep(window)  # until the queries of this run are forgotten
            how = "with Retry-After" if told else "without Retry-After"
            tell(f"{how}: ideal {ideal} s for {pages} pages, {queries} queries in {window} s")
            reached.append(show(f"time / ideal, {how}", ratios, 1.05))
            reached.append(show(f"most 429s in any {window} s, {how}", refused, 1))
    return all(reached)


def _most_in_a_window(moments: List[float], window: float) -> int:
    return max(
        (sum(1 for other in moments if moment <= other < moment + window) for moment in moments),
        default=0,
    )


def groups(options: argparse.Namespace) -> bool:
    """500 experiments of 20 rows in one project: all queries of the process, against its pages and
    one count per 25 objects.

    The sandbox sends a cursor with each page that has rows, as the service does, so that a cursor
    does not tell the end.
    """
    ideal = 2 * math.ceil(500 / OBJECTS_PER_QUERY)
    ratios = []
    with server(projects=1, experiments=500, rows=20) as source:
        for _ in range(options.runs):
            source.control(clear_requests=True)
            migrate(source, rows=500 * 20, program="migrate_experiments")
            ratios.append(len(source.requests("/btql")) / ideal)
    return show(f"queries / {ideal} (pages + counts)", ratios, 1.05)


def objects(options: argparse.Namespace) -> bool:
    """200 experiments and 100 datasets of 20 rows in 5 projects, by migrate-all without
    verification.

    The ideal: what each organization has to answer, in the order in which one needs the other,
    always 10 requests in flight and no time for anything else: find both organizations (one round
    of a list), list the projects of both sides (a round), make the projects (a round), list
    datasets and experiments of both sides (a round), make 300 objects (30 rounds), with the rows
    read meanwhile from the other side, and insert the rows of the last objects (a round). Printed
    for comparison: what a bare client takes for these requests of the destination on this machine,
    which the ideal leaves out.
    """
    lists = 3 * OBJECT_S
    creations = (math.ceil(5 / IN_FLIGHT) + math.ceil(300 / IN_FLIGHT)) * OBJECT_S
    ideal = lists + creations + INSERT_S
    start = idle().wall_s
    latency = {"btql": PAGE_S, "insert": INSERT_S, "list": OBJECT_S, "create": OBJECT_S}
    args = ("--no-verify", "--resources", "datasets,experiments")
    ratios, bare = [], []
    with server(projects=5, experiments=200, datasets=100, rows=20, latency=latency) as source:
        for _ in range(options.runs):
            source.control(clear_requests=True)
            with server(name="dest", latency=latency) as dest:
                seconds = migrate(
                    source, dest, rows=300 * 20, program="migrate_all", args=args
                ).wall_s
                sides = ", ".join(
                    f"{name}: {_counted(side.requests())}"
                    for name, side in (("source", source), ("destination", dest))
                )
            ratios.append(seconds / ideal)
            with server(name="dest", latency=latency) as dest:
                bare.append(floor("objects", dest.url, dest.key)["seconds"] / ideal)
    tell(f"bare requests of the destination: {median_of(bare):.2f} of the ideal")
    tell(
        f"ideal {ideal:.2f} s; the start of Python and the program, {start:.2f} s, is in "
        "the figure; requests of the last run:"
    )
    tell(sides)
    return show("time / ideal", ratios, 1.5)


def _counted(requests: List[Json]) -> str:
    found: Dict[str, int] = {}
    for request in requests:
        kind = request["method"] + " " + request["path"].split("?")[0].rsplit("/", 1)[-1]
        found[kind] = found.get(kind, 0) + 1
    return " ".join(f"{kind} {count}" for kind, count in sorted(found.items()))
