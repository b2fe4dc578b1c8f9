"""Benchmarks of syncs: one that meets nothing new, and one of 1,000 changed rows as the history
that was copied grows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import tempfile
import urllib.request
import uuid
from pathlib import Path
from typing import Any, List, Tuple

from harness import Cost, Json, Migration, Server, median_of, server, show, tell

LATENCY = {"btql": 0.15, "insert": 0.1, "list": 0.08, "get": 0.08, "create": 0.08}
MANY_OBJECTS = {
    "projects": 20,
    "experiments": 100,
    "datasets": 60,
    "rows": 20,
    "logs": 2000,
    "spread_days": 30,
    "latency": LATENCY,
}
CHANGED = 1000
SINCE_LAST = ("--since-last", "--lookback", "1s")


def sync_empty(options: argparse.Namespace) -> bool:
    """20 projects, 100 experiments, 60 datasets: what a sync takes beyond the waiting for its
    requests, and its queries.

    Each group of 25 objects costs a count and a page.
    """
    own, costs = [], []
    with contextlib.ExitStack() as held:
        source = held.enter_context(server(**MANY_OBJECTS))
        dest = held.enter_context(server(name="dest", latency=LATENCY))
        folder = held.enter_context(tempfile.TemporaryDirectory(prefix="bench_"))
        how = Migration(
            source, dest, Path(folder), program="migrate_all", args=(*SINCE_LAST, "--no-verify")
        )
        how.start().end()
        how.start().end()  # takes in once more what came in the second of the mark
        for _ in range(options.runs):
            for side in (source, dest):
                side.control(clear_requests=True)
            cost = how.start().end()
            asked = [*source.requests(), *dest.requests()]
            own.append(cost.wall_s - waited(asked))
            costs.append(cost)
        queries = len(source.requests("/btql"))
        writes = [request for request in dest.requests() if request["method"] != "GET"]
    walls = median_of([cost.wall_s for cost in costs])
    cpus = median_of([cost.cpu_s for cost in costs])
    tell(
        f"{walls:.1f} s in all, {cpus:.1f} s of CPU, {len(asked)} requests, {queries} "
        f"queries (180 streams), {len(writes)} writes"
    )
    pages = sum(math.ceil(objects / 25) for objects in (20, 100, 60))
    # And one count for each kind of rows, by which a source that shows nothing is noticed.
    ideal = 2 * pages + 3
    few = show(f"queries / {ideal} (pages + counts)", [queries / ideal], 1.05)
    return show("time beyond the waiting for answers", own, 2, " s") and few and not writes


def waited(requests: List[Json]) -> float:
    """Seconds in which at least one request was in flight."""
    total, reached = 0.0, 0.0
    for begin, end in sorted((request["started"], request["finished"]) for request in requests):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def sync_growth(options: argparse.Namespace) -> bool:
    """The client alone is measured: the sandbox looks through all its rows for those of a
    transaction, a real server need not. The histories take turns: the cores are faster or slower
    for minutes.
    """
    sizes = (options.rows // 10, options.rows, options.rows * 10)
    # CPU seconds, requests, bytes of their bodies
    costs: List[List[Tuple[float, int, int]]] = [[] for _ in sizes]
    with contextlib.ExitStack() as held:
        copies = [copied(held, rows) for rows in sizes]
        firsts = [changed(*copy)[0].cpu_s for copy in copies]
        for _ in range(options.runs):
            for found, copy in zip(costs, copies):
                cost, asked = changed(*copy)
                sent_bytes = sum(request["body_bytes"] for request in asked)
                found.append((cost.cpu_s, len(asked), sent_bytes))
    for rows, first, found in zip(sizes, firsts, costs):
        again = median_of([cpu for cpu, _, _ in found])
        tell(
            f"{rows:,} rows: the first sync after the copy takes {first - again:+.1f} s of "
            "CPU to make the index of its rows"
        )
    reached = []
    for name, position, unit in (
        ("CPU of the client", 0, " s"),
        ("requests", 1, ""),
        ("bytes sent", 2, ""),
    ):
        values = [[cost[position] for cost in found] for found in costs]
        tell(f"{name}: " + ", ".join(f"{median_of(value):.3g}{unit}" for value in values))
        ratios = [most / least for least, most in zip(values[0], values[2])]
        reached.append(
            show(
                f"{name}, {options.rows * 10:,} rows of history / {options.rows // 10:,}",
                ratios,
                1.1,
            )
        )
    return all(reached)


def copied(held: contextlib.ExitStack, rows: int) -> Tuple[Server, Server, Migration]:
    """A project of so many log rows, after its first copy."""
    source = held.enter_context(server(projects=1, logs=rows, spread_days=30))
    dest, folder = (
        held.enter_context(server(name="dest")),
        held.enter_context(tempfile.TemporaryDirectory(prefix="bench_")),
    )
    how = Migration(source, dest, Path(folder), args=SINCE_LAST)
    how.start().end()
    return source, dest, how


def changed(source: Server, dest: Server, how: Migration) -> Tuple[Cost, List[Json]]:
    """A sync of 500 new and 500 edited rows, and its requests."""
    project = source.ids["logs"][0]
    query = (
        f"select: id | from: project_logs('{project}') spans | sort: _pagination_key asc | "
        f"limit: {CHANGED // 2}"
    )
    old = [row["id"] for row in post(source, "/btql", {"query": query})["data"]]
    new = [str(uuid.uuid4()) for _ in range(CHANGED - len(old))]
    events = [
        {"id": row_id, "input": "changed " * 100, "metadata": {"mark": uuid.uuid4().hex}}
        for row_id in (*old, *new)
    ]
    post(source, f"/v1/project_logs/{project}/insert", {"events": events})
    rows = dest.ask("rows")
    for side in (source, dest):
        side.control(clear_requests=True)
    cost = how.start().end()
    if dest.ask("rows") != rows + len(new):
        raise SystemExit(f"{dest.ask('rows') - rows} new rows arrived of {len(new)}")
    return cost, [*source.requests(), *dest.requests()]


def post(side: Server, path: str, body: Any) -> Json:
    headers = {"Authorization": f"Bearer {side.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(side.url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())
