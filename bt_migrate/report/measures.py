"""Lag and estimate in one line each. Pure."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from bt_migrate.api.throttle import STARTER_QUERIES_PER_MINUTE
from bt_migrate.report.display import duration_text, plural, size_text


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
    """`4,489 rows, 4.7 MB; 30 queries, 12 inserts. Copy: 0.1 s unlimited, 2 min at 20 …`"""
    text = plural(estimate["rows"], "row")
    if estimate["uncounted_streams"]:
        streams = plural(estimate["uncounted_streams"], "stream")
        text += f" and {streams} that the server does not count"
    text += f", {size_text(estimate['bytes'])}"
    if estimate["processed_bytes"] != estimate["bytes"]:
        text += f", of which {size_text(estimate['processed_bytes'])} are new"
    if estimate["attachments"]:
        text += f", about {plural(estimate['attachments'], 'attachment')}"
    return (
        f"{text}; {plural(estimate['queries'], 'query')}, {plural(estimate['inserts'], 'insert')}."
        f" Copy: {_copy_time(estimate)}"
    )


def _copy_time(estimate: Mapping[str, Any]) -> str:
    rate = estimate["queries_per_minute"]
    pace = f"at {rate:g} queries a minute" if rate else "unlimited"
    limited = duration_text(estimate["minutes_at_20_queries_a_minute"] * 60)
    text = (
        f"{duration_text(estimate['seconds'])} {pace},"
        f" {limited} at {STARTER_QUERIES_PER_MINUTE} queries a minute (Starter and Pro plans)"
    )
    queries = estimate.get("verification_queries")
    return f"{text}; verification: {_verification_time(estimate, queries)}" if queries else text


def _verification_time(estimate: Mapping[str, Any], queries: int) -> str:
    """A query of the comparison takes as long as one of the copy."""
    seconds = estimate["seconds"] * queries / max(estimate["queries"], 1)
    limited = duration_text(queries / STARTER_QUERIES_PER_MINUTE * 60)
    return f"+ {duration_text(seconds)}, or + {limited}"
