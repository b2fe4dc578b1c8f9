"""The status of a process: the content of `status.json`, and what the terminal shows.

This module does not know files and screens.
"""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple

from bt_migrate.cli.rates import Beat, Rates
from bt_migrate.errors import StateError
from bt_migrate.model.date_windows import instant, iso
from bt_migrate.state.live_counts import LiveCounts, Task
from bt_migrate.state.run_directory import RunDirectory

if TYPE_CHECKING:  # bin/status shows a status without a client
    from bt_migrate.api.client import Api

# How often the control file is read and the status file written.
BEAT_S = 1.0
ROWS = "rows"
# prefix of the names of phases that move something
MOVES = "migrate-"
RATE_LIMIT = "rate limit: next query in"
# The rate of the rows so far counts if they are this share of those left: the first ones often
# are those of small objects.
LEAST_SHARE = 0.01
# Shorter waits are not shown.
LEAST_WAIT_S = 1.0


class ProcessStatus:
    """The status of this process, measured once a second. Not safe for several threads."""

    def __init__(
        self, live: LiveCounts, sides: Sequence[Api], run: Optional[RunDirectory] = None
    ) -> None:
        self._live = live
        self._run = run
        self._sides = sides
        self._rates = Rates()
        self._rows_before: Optional[int] = None

    def measured(self) -> Dict[str, Any]:
        """Returns the current phase, work, open streams, waits, and requests of both sides."""
        live = self._live
        phase = live.phase
        streams = live.streams()
        task = live.task
        parts = task.streams() if task else {}
        self._rates.add(self._beat(phase, task, {**parts, **streams}))
        wait = longest_wait(live, self._sides)
        rows_of = self._with_rates(streams, row_totals(self._run))
        parts_of = self._with_rates(parts, {})
        return {
            "phase": phase,
            "phase_number": live.phase_number,
            "paused": any(api.throttle.paused for api in self._sides),
            "rows_per_second": self._rates.per_second(""),
            "rows": live.total,
            "work": not_before_the_longest(self._work(phase, task), [*rows_of, *parts_of]),
            "wait": wait,
            "streams": rows_of,
            "parts": parts_of,
            "sides": {api.side: _side(api) for api in self._sides},
        }

    def _beat(
        self, phase: str, task: Optional[Task], streams: Mapping[str, Mapping[str, Any]]
    ) -> Beat:
        counts = {source_id: stream["done"] for source_id, stream in streams.items()}
        # Earlier phases read other numbers of rows with a query.
        counts.update({"": self._live.total, phase: self._live.total})
        if task is not None:
            counts[task.unit] = task.total
        queries = {api.side: api.throttle.queries for api in self._sides}
        return Beat(time.monotonic(), counts, queries)

    def _work(self, phase: str, task: Optional[Task]) -> Dict[str, Any]:
        """Returns what is counted now: a task, or else the rows of this run."""
        if task is not None:
            return self._progress(task.unit, task.unit, task.total, task.of)
        if not phase.startswith(MOVES):
            return self._progress("", "", 0, None)
        if self._rows_before is None:
            self._rows_before = _rows_before(self._run) if self._run else 0
        totals = row_totals(self._run).values()
        unknown = not totals or None in totals
        total = None if unknown else sum(rows or 0 for rows in totals)
        done = self._rows_before + self._live.total
        return self._progress(phase, ROWS, done, total)

    def _progress(self, name: str, unit: str, done: int, total: Optional[int]) -> Dict[str, Any]:
        if total is not None:
            # The source may grow while it is read.
            total = max(total, done)
        units_left = total - done if total else 0
        limits = {api.side: api.throttle.queries_per_minute for api in self._sides if _limits(api)}
        seconds = self._rates.seconds_left(name, units_left, limits)
        if unit == ROWS and self._rates.grown(name) < LEAST_SHARE * units_left:
            seconds = estimated_seconds(self._run, units_left, limits)
            if not seconds and self._rates.grown("") >= LEAST_SHARE * units_left:
                seconds = self._rates.seconds_left("", units_left, limits)
        if seconds:
            waits = (api.throttle.limit_wait_s() for api in self._sides)
            seconds = max(seconds, *waits, 0)
        return {
            "unit": unit,
            "done": done,
            "total": total,
            "per_second": self._rates.per_second(name),
            "seconds_left": math.ceil(seconds) if seconds else None,
        }

    def _with_rates(
        self, streams: Mapping[str, Dict[str, Any]], totals: Mapping[str, Optional[int]]
    ) -> Any:
        return [
            {
                "total": totals.get(source_id),
                **stream,
                "rows_per_second": self._rates.per_second(source_id),
            }
            for source_id, stream in streams.items()
        ]


def not_before_the_longest(
    work: Dict[str, Any], streams: Sequence[Mapping[str, Any]]
) -> Dict[str, Any]:
    """Returns the work with a time left in which the longest open stream can end.

    The rate of all streams says too little once one large stream is left. The best rate of an open
    stream is taken for all: a stream that is slow now may only wait for its turn.
    """
    rates = [stream["rows_per_second"] for stream in streams]
    left = [stream["total"] - stream["done"] for stream in streams if stream["total"]]
    if not work["seconds_left"] or not left or not max(rates):
        return work
    longest = math.ceil(max(left) / max(rates))
    return {**work, "seconds_left": max(work["seconds_left"], longest)}


def _rows_before(run: RunDirectory) -> int:
    """Returns the rows of earlier starts: of the copy, or of the current sync.

    0 if a state file is damaged: the phase that opens the file reports it and ends.
    """
    if len(run.record.sessions) < 2:
        return 0
    try:
        states = run.all_streams()
    except StateError:
        return 0
    return sum(state.counts["fetched"] for state in states if state.sync.round == run.record.round)


def row_totals(run: Optional[RunDirectory]) -> Dict[str, Optional[int]]:
    """Returns source object -> its rows, as a plan of shards or a validation counted them."""
    if run is None:
        return {}
    if run.record.shard is not None:
        totals: Dict[str, Optional[int]] = {}
        for unit in run.record.shard.units:
            totals[unit.id] = (totals.get(unit.id) or 0) + unit.rows
        return totals
    streams = (run.record.validation or {}).get("streams", {})
    return {stream["id"]: stream["rows"] for counted in streams.values() for stream in counted}


def estimated_seconds(
    run: Optional[RunDirectory], rows: int, limits: Mapping[str, Optional[float]]
) -> float:
    """Returns the time for a number of rows by the estimate of the validation, 0 without one."""
    estimate = ((run and run.record.validation) or {}).get("estimate") or {}
    if not estimate.get("rows"):
        return 0.0
    rates = [rate for rate in limits.values() if rate]
    limited_s = estimate["queries"] * 60 / min(rates) if rates else 0.0
    return float(rows / estimate["rows"] * max(estimate["seconds"], limited_s))


def _limits(api: Api) -> bool:
    """Whether the side is known to limit queries."""
    return bool(api.throttle.queries_per_minute or api.throttle.hits)


def longest_wait(live: LiveCounts, sides: Sequence[Api]) -> Optional[Dict[str, str]]:
    """Returns why the process waits and until when, None if it does not."""
    waits = [wait for wait in _waits(live, sides) if wait[0] >= LEAST_WAIT_S]
    if not waits:
        return None
    seconds, reason, detail = max(waits)
    until = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return {"reason": reason, "detail": detail, "until": iso(until.replace(microsecond=0))}


def _waits(live: LiveCounts, sides: Sequence[Api]) -> Iterator[Tuple[float, str, str]]:
    """Yields (seconds, reason, detail)."""
    now = time.monotonic()
    for api in sides:
        yield api.throttle.limit_wait_s(), RATE_LIMIT, api.throttle.limit_text
        if not api.transport.in_flight.taken:
            reason = f"{api.side} does not answer: next try in"
            yield api.transport.next_try_s - now, reason, ""
    if live.wait is not None:
        reason, until = live.wait
        yield until - now, reason, ""


def wait_text(wait: Mapping[str, str], now: datetime) -> str:
    """`rate limit: next query in 41 s (20 a minute, learnt)`"""
    seconds = max(0, round((instant(wait["until"]) - now).total_seconds()))
    detail = f" ({wait['detail']})" if wait["detail"] else ""
    return f"{wait['reason']} {seconds} s{detail}"


def _side(api: Api) -> Dict[str, Any]:
    return {
        "started_with": api.transport.limits.max_concurrent,
        "in_flight": api.transport.in_flight.taken,
        "max_concurrent": api.transport.in_flight.limit,
        "requests_per_second": api.throttle.requests_per_second,
        "requests": api.transport.requests_sent,
        "retries": api.transport.retries,
        "rate_limited": api.throttle.hits,
    }
