"""Benchmarks of the rows of one large stream: time, CPU, memory."""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import tempfile
import time
from typing import Dict, List, Sequence

from harness import (
    Cost,
    Server,
    check_arrived,
    floor,
    has_orjson,
    idle,
    libraries,
    median_of,
    migrate,
    migration,
    server,
    show,
    tell,
)

PAGE_ROWS = 1000
PAGE_S, INSERT_S = 0.15, 0.1
MB = 1_000_000
PIECES = 6  # in which the longest run of `growth` is done


def pages_of(rows: int) -> int:
    return math.ceil(rows / PAGE_ROWS)


def pages(options: argparse.Namespace) -> bool:
    """The whole process, from its start to its end, against nothing but waiting for the pages one
    after the other.
    """
    reached = []
    with server(projects=1, logs=options.rows, latency={"btql": PAGE_S}) as source:
        with tempfile.TemporaryDirectory() as folder:
            bare = floor("read", source.url, source.key, source.ids["logs"][0], folder)["seconds"]
        ideal = pages_of(options.rows) * PAGE_S
        tell(
            f"ideal {ideal:.1f} s; bare reading of the pages, nothing decoded: "
            f"{bare / ideal:.2f} of it"
        )
        for library in libraries():
            costs = runs_of(source, options, library=library)
            reached.append(
                show(
                    f"total / (pages x latency), {library} json",
                    [cost.wall_s / ideal for cost in costs],
                    1.15,
                )
            )
    return all(reached)


def runs_of(
    source: Server, options: argparse.Namespace, rows: int = 0, **how: object
) -> List[Cost]:
    """Runs of all log rows into new destinations."""
    return [run_of(source, rows or options.rows, **how) for _ in range(options.runs)]


def run_of(
    source: Server, rows: int, *, insert_s: float = INSERT_S, sink: bool = False, **how: object
) -> Cost:
    with server(name="dest", latency={"insert": insert_s}, sink=sink) as dest:
        return migrate(source, dest, rows=rows, **how)


def slices(options: argparse.Namespace) -> bool:
    """Rows that came over 30 days, as logs do, so that equal parts of the time hold unequal numbers
    of rows.
    """
    rows, page_s = 40_000, 0.6
    with server(projects=1, logs=rows, spread_days=30, latency={"btql": page_s}) as source:
        alone_costs = runs_of(source, options, rows)
        source.control(clear_requests=True)
        four = runs_of(source, options, rows, args=("--read-streams", "4"))
        queries = len(source.requests("/btql")) / options.runs
    tell(
        f"one stream {median_of([cost.wall_s for cost in alone_costs]):.1f} s; with four "
        f"{queries:.0f} queries for {pages_of(rows)} pages"
    )
    ratios = [alone.wall_s / together.wall_s for alone, together in zip(alone_costs, four)]
    return show("one stream / four", ratios, 3.3, at_least=True)


def cpu(options: argparse.Namespace) -> bool:
    """User and system time of the whole process without that of an idle run (its start), against
    decoding the very bytes of the pages and encoding their rows as they are inserted, a page at a
    time, with the same library and nothing around it.
    """
    reached = []
    with server(projects=1, logs=options.rows) as source, tempfile.TemporaryDirectory() as folder:
        floor("read", source.url, source.key, source.ids["logs"][0], folder)
        for library, most in (("standard", 2.5), ("orjson", 4.0)):
            if library == "orjson" and not has_orjson():
                tell("orjson is not installed: its figure is left out")
                continue
            start = median_of([idle(library=library).cpu_s for _ in range(3)])
            ratios, bare = [], []
            for cost in runs_of(source, options, library=library):
                bare.append(floor("json", folder, library)["cpu_s"])
                ratios.append((cost.cpu_s - start) / bare[-1])
            micros = median_of(bare) / options.rows * 1e6
            tell(
                f"{library}: bare {micros:.1f} us a row; an idle run takes {start:.2f} s, taken off"
            )
            reached.append(show(f"CPU / bare decode and encode, {library} json", ratios, most))
    return all(reached)


def memory(options: argparse.Namespace) -> bool:
    """With the latencies of `pages`; and from a fast source into a destination so slow that rows
    wait up to their bound.
    """
    reached = []
    for name, page_s, insert_s in (
        ("as in pages", PAGE_S, INSERT_S),
        ("slow destination", 0.0, 1.0),
    ):
        with server(projects=1, logs=options.rows, latency={"btql": page_s}) as source:
            for library in libraries():
                start = idle(library=library).peak_mb
                costs = runs_of(source, options, insert_s=insert_s, library=library)
                peaks = [cost.peak_mb - start for cost in costs]
                reached.append(
                    show(
                        f"peak over {start:.0f} MB of an idle start, {name}, {library} json",
                        peaks,
                        120,
                        " MB",
                    )
                )
    return all(reached)


def large(options: argparse.Namespace) -> bool:
    """Two large rows among 2000 of 1 KB; /version announces an upload for requests over 6 MB."""
    shape = {"projects": 1, "logs": 2000, "large": [19 * MB, 25 * MB], "latency": {"btql": PAGE_S}}
    limits = {"logs3_payload_max_bytes": 6 << 20}
    reached = []
    with server(**shape) as source:
        for library in libraries():
            start = idle(library=library).peak_mb
            peaks = []
            for _ in range(options.runs):
                with server(name="dest", latency={"insert": INSERT_S}, limits=limits) as dest:
                    peaks.append(migrate(source, dest, rows=2000, library=library).peak_mb - start)
            reached.append(
                show(
                    f"peak memory over {start:.0f} MB of an idle start, {library} json",
                    peaks,
                    250,
                    " MB",
                )
            )
    return all(reached)


def growth(options: argparse.Namespace) -> bool:
    """With the latencies of `pages`, so that a run of any length holds as many rows at once; into a
    destination that only counts them: one that keeps them takes nearly the time of a page for it on
    one core, and what it is behind waits in the client.

    The speed of a machine drifts, within seconds and within minutes, by more than what is looked
    for. So the sizes share the time: the longest run is stopped (SIGSTOP) again and again for runs
    of the others, and of none, whose CPU is taken off as that of a start.
    """
    sizes = [options.rows // 10, options.rows, options.rows * 10]
    peaks: Dict[int, List[float]] = {rows: [] for rows in sizes}
    micros: Dict[int, List[float]] = {rows: [] for rows in sizes}
    with contextlib.ExitStack() as stack:
        sources = {
            rows: stack.enter_context(server(projects=1, logs=rows, latency={"btql": PAGE_S}))
            for rows in (0, *sizes)
        }
        for _ in range(options.runs):
            costs = _costs_of_sizes(sources, sizes)
            cpu_s = {
                rows: statistics.mean(cost.cpu_s for cost in found) for rows, found in costs.items()
            }
            for rows in sizes:
                micros[rows].append((cpu_s[rows] - cpu_s[0]) / rows * 1e6)
                peaks[rows].append(median_of([cost.peak_mb for cost in costs[rows]]))
            tell(
                f"a start {cpu_s[0]:.2f} s; "
                + ", ".join(f"{rows:,} rows: {micros[rows][-1]:.1f} us each" for rows in sizes)
            )
    return _show_growth(sizes, peaks, micros)


def _costs_of_sizes(sources: Dict[int, Server], sizes: Sequence[int]) -> Dict[int, List[Cost]]:
    """Runs of all sizes, and of no rows; the longest is stopped for the others."""
    few, some, many = sizes
    costs: Dict[int, List[Cost]] = {rows: [] for rows in sources}
    with server(name="dest", latency={"insert": INSERT_S}, sink=True) as dest, migration(
        sources[many], dest
    ) as longest:
        for _ in range(PIECES):
            time.sleep(pages_of(many) * PAGE_S / PIECES)
            with longest.paused():
                for rows in (0, few, 0, few, some, 0, few, 0, few):
                    costs[rows].append(run_of(sources[rows], rows, sink=True))
        costs[many].append(longest.end())
        check_arrived(dest, many)
    return costs


def _show_growth(
    sizes: Sequence[int], peaks: Dict[int, List[float]], micros: Dict[int, List[float]]
) -> bool:
    """`peaks`, `micros`: number of rows -> MB, and microseconds a row, of each run."""
    _, some, many = sizes
    more = [after - before for before, after in zip(peaks[some], peaks[many])]
    against = {
        rows: median_of([cost / middle for cost, middle in zip(micros[rows], micros[some])])
        for rows in sizes
    }
    tell(
        "medians, against the middle: "
        + ", ".join(f"{rows:,} rows: {ratio:.3f}" for rows, ratio in against.items())
    )
    return all(
        (
            show("peak memory of 10 times the rows, minus", more, 10, " MB"),
            show(
                "CPU a row, most / least of the three medians",
                [max(against.values()) / min(against.values())],
                1.10,
            ),
        )
    )
