"""Lag, estimate and states of datasets as text, one line each. Pure."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from bt_migrate.api.throttle import STARTER_QUERIES_PER_MINUTE
from bt_migrate.report.display import duration_text, plural, shown, size_text

MISSED_AGAIN = "once a sync ten minutes later misses them again"


def lag_text(lag: Optional[Mapping[str, Any]]) -> str:
    """`12 rows written since 2026-01-15T00:00:00Z, the oldest 3 min ago`"""
    if not lag:
        return "not measured"
    if lag["rows"] is None:
        return "unknown (this server does not count)"
    text = f"{plural(lag['rows'], 'row')} written since {lag['since']}"
    if lag["oldest_seconds"] is not None:
        text += f", the oldest {duration_text(lag['oldest_seconds'])} ago"
    return text


def estimate_text(estimate: Mapping[str, Any]) -> str:
    """`4,489 rows, 4.7 MB. In all about 14 s unlimited, 2 min at 20 queries a minute …`"""
    text = plural(estimate["rows"], "row")
    if estimate["uncounted_streams"]:
        streams = plural(estimate["uncounted_streams"], "stream")
        text += f" and {streams} that the server does not count"
    text += f", {size_text(estimate['bytes'])}"
    if estimate["processed_bytes"] != estimate["bytes"]:
        text += f", of which {size_text(estimate['processed_bytes'])} are new"
    if estimate["attachments"]:
        text += f", about {plural(estimate['attachments'], 'attachment')}"
    text += earlier_states_text(estimate.get("earlier_states") or {})
    if estimate.get("state_bytes"):
        text += f"; {size_text(estimate['state_bytes'])} of disk for the run"
    return f"{text}. In all {_whole_time(estimate)}; {plural(estimate['inserts'], 'insert')}"


def earlier_states_text(states: Mapping[str, Any]) -> str:
    """`, and 1,203 rows and 4 deletions for 5 earlier states of datasets`, or nothing"""
    if not (states.get("rows") or states.get("deletes")):
        return ""
    deletes = f" and {plural(states['deletes'], 'deletion')}" if states["deletes"] else ""
    made = f"{plural(states['states'], 'earlier state')} of datasets"
    return f", and {plural(states['rows'], 'row')}{deletes} for {made}"


def deletes_text(deletes: Mapping[str, Mapping[str, int]]) -> str:
    """`3 rows of logs, and 2 more once a sync ten minutes later misses them again; …`"""
    return "; ".join(_deletes_of(kind, planned) for kind, planned in deletes.items())


def _deletes_of(kind: str, planned: Mapping[str, int]) -> str:
    if planned["too_many"]:
        gone = plural(planned["too_many"], "row")
        return f"none of {gone} of {kind} that are gone, as --max-deletes allows fewer"
    text = f"{plural(planned['rows'], 'row')} of {kind}"
    return f"{text}, and {planned['waiting']:,} more {MISSED_AGAIN}" if planned["waiting"] else text


def _whole_time(estimate: Mapping[str, Any]) -> str:
    """Returns the time of validation, copy and verification; their queries count the same."""
    parts = {
        "validation": estimate.get("validation_queries", 0),
        "copy": estimate["queries"],
        "verification": estimate.get("verification_queries", 0),
    }
    queries = sum(parts.values())
    rate = estimate["queries_per_minute"]
    pace = f"at {rate:g} queries a minute" if rate else "unlimited"
    seconds = estimate.get("whole_seconds", 0.0)
    limited_s = max(limited_seconds(queries, STARTER_QUERIES_PER_MINUTE), seconds)
    limited = duration_text(limited_s)
    shares = ", ".join(f"{name} {count:,}" for name, count in parts.items() if count)
    return (
        f"about {duration_text(seconds)} {pace}, {limited} at {STARTER_QUERIES_PER_MINUTE}"
        f" queries a minute (Starter and Pro plans); queries: {shares}"
    )


def limited_seconds(queries: int, per_minute: Optional[float]) -> float:
    """Returns how long queries take of which only so many may start in any minute.

    The first ones start at once, the next ones a minute later.
    """
    return 60.0 * ((queries - 1) // per_minute) if queries and per_minute else 0.0


def states_text(states: Mapping[str, Any]) -> str:
    """`3 are named; 2 of 1 dataset will be made …`"""
    parts = [f"{states['named']:,} named by snapshots and experiments"]
    if states["to_make"]:
        datasets_text = plural(states["datasets"], "dataset")
        parts.append(f"{states['to_make']:,} of {datasets_text} will be made, oldest first")
    if states["kept"]:
        names = ", ".join(shown(name) for name in states["kept"])
        parts.append(f"only the present one of what is in the destination already: {names}")
    if not states["wanted"]:
        parts.append("earlier ones are made with --dataset-versions only")
    return "; ".join(parts)
