"""Benchmark of the comparison: every row of both sides against reading them alone."""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import List

from harness import Cost, Server, floor, idle, libraries, median_of, migrate, server, show, tell

PAGE_S = 0.15


def verify(options: argparse.Namespace) -> bool:
    """`verify --full` of two equal organizations, without a run of theirs. The whole process, from
    its start to its end, against reading all pages of both sides at the same time, nothing decoded;
    and its memory for a tenth of the rows and for all.
    """
    reached = []
    for library in libraries():
        start = idle(library=library).peak_mb
        peaks: List[List[float]] = []
        for rows in (options.rows // 10, options.rows):
            shape = {"projects": 1, "logs": rows, "spread_days": 30, "latency": {"btql": PAGE_S}}
            with server(name="source", **shape) as source, server(name="dest", **shape) as dest:
                bare = [_read_alone(source, dest) for _ in range(options.runs)]
                costs = [_compared(source, dest, library) for _ in range(options.runs)]
            peaks.append([cost.peak_mb - start for cost in costs])
            micros = median_of([cost.cpu_s for cost in costs]) / rows * 1e6
            tell(
                f"{library}, {rows:,} rows a side: "
                f"{median_of([cost.wall_s for cost in costs]):.1f} s, reading alone "
                f"{median_of(bare):.1f} s; {micros:.0f} us of CPU a row pair; peak over an "
                f"idle start {median_of(peaks[-1]):.0f} MB"
            )
        ratios = [cost.wall_s / alone for cost, alone in zip(costs, bare)]
        reached.append(show(f"time / reading both sides alone, {library} json", ratios, 1.3))
        more = [after - before for before, after in zip(*peaks)]
        reached.append(
            show(f"peak memory of 10 times the rows, minus, {library} json", more, 10, " MB")
        )
    return all(reached)


def _read_alone(source: Server, dest: Server) -> float:
    """Seconds until both sides are read, each by a process of its own."""

    def seconds(side: Server) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return float(floor("read", side.url, side.key, side.ids["logs"][0], folder)["seconds"])

    with ThreadPoolExecutor(2) as pool:
        return max(pool.map(seconds, (source, dest)))


def _compared(source: Server, dest: Server, library: str) -> Cost:
    return migrate(source, dest, program="verify", args=("--full",), library=library)
