"""Measures whether the figures of the README are reached: python3 tests/bench/bench.py [NAME ...]
[--runs 5]

Each benchmark starts sandboxes in processes of their own, with fixed latencies, and real migrations
against them, and prints for each figure the median of its runs against what is to be reached.
Figures are ratios against a floor: an ideal that follows from the latencies, or bare work measured
in the same run. Without a name it lists the benchmarks; `all` takes two hours and a half.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path
from typing import Callable, Dict, Tuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "bin")]

import bootstrap  # noqa: E402
from comparing import verify  # noqa: E402
from rates import groups, kill, objects, rate  # noqa: E402
from streams import cpu, growth, large, memory, pages, slices  # noqa: E402
from syncing import sync_empty, sync_growth  # noqa: E402

Benchmark = Callable[[argparse.Namespace], bool]

BENCHMARKS: Dict[str, Tuple[Benchmark, str]] = {
    "pages": (pages, "one stream: time against pages x latency"),
    "streams": (slices, "four read streams against one"),
    "cpu": (cpu, "CPU against bare decoding and encoding of the same bytes"),
    "growth": (growth, "peak memory and CPU per row for 10k, 100k and 1M rows"),
    "memory": (memory, "peak memory above an idle start"),
    "large": (large, "peak memory with rows of 19 MB and 25 MB"),
    "kill": (kill, "rows sent again after SIGKILL, and the start of the resumed run"),
    "rate": (rate, "time and 429s under a limit of 20 queries a minute"),
    "groups": (groups, "queries for 500 experiments of 20 rows, against pages and counts"),
    "objects": (objects, "time for 300 objects of 20 rows, 10 requests in flight"),
    "sync-empty": (
        sync_empty,
        "a sync that meets nothing new: time beyond the waiting for answers",
    ),
    "sync-growth": (
        sync_growth,
        "a sync of 1,000 changed rows after 10k, 100k and 1M rows of history: CPU, requests, bytes",
    ),
    "verify": (verify, "verify --full: time against reading both sides alone, and memory"),
}


def options() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:10}{about}" for name, (_, about) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"benchmarks:\n{listed}",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        choices=[*BENCHMARKS, "all", []],
        help="what to measure, or all",
    )
    parser.add_argument("--runs", type=int, default=5, help="runs whose median counts (default: 5)")
    parser.add_argument(
        "--rows",
        type=int,
        default=100_000,
        help="log rows where the figure names 100,000 (to try things out)",
    )
    parser.add_argument(
        "--real-minute", action="store_true", help="rate: windows of 60 s instead of 12 s"
    )
    return parser


def main() -> int:
    bootstrap.enter()
    parser = options()
    chosen = parser.parse_args()
    if not chosen.names:
        parser.print_help()
        return 2
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, median of {chosen.runs}",
        flush=True,
    )
    names = list(BENCHMARKS) if "all" in chosen.names else chosen.names
    reached = []
    for name in names:
        print(f"{name}: {BENCHMARKS[name][1]}", flush=True)
        reached.append(BENCHMARKS[name][0](chosen))
    return 0 if all(reached) else 1


if __name__ == "__main__":
    raise SystemExit(main())
