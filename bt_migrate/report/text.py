"""text."""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, Iterable, List, Mapping, Optional

from bt_migrate.api.throttle import STARTER_QUERIES_PER_MINUTE
from bt_migrate.model.findings import KINDS
from bt_migrate.model.outcomes import OUTCOMES

REPORT_FILE = "migration_report.json"
SUMMARY_FILE = "migration_summary.txt"
FINDINGS_FILE = "findings.jsonl"
SHOWN_PER_KIND = 20  # findings of one kind in the summary; the report holds all


def _sum(counts: Iterable[Dict[str, int]]) -> Dict[str, int]:
    total: Counter = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def summary_text(report: Dict[str, Any]) -> str:
    """The report for a person."""
    source, dest = report["source"], report["destination"]
    lines = [
        f"{_headline(report)}: {source['org_name']} -> {dest['org_name']}",
        f"  from {source['url']} to {dest['url']}",
        f"  run {report['run_directory']}, {report['duration_seconds']:.1f} s",
        "",
        "Objects",
        *_table(
            ["resource", "project", "listed", "outcomes"],
            [
                [
                    one["resource"],
                    _shown(one["project"]),
                    f"{one['listed']:,}",
                    _counts(one["outcomes"]),
                ]
                for one in report["objects"]
            ],
        ),
    ]
    if report["rows"]:
        table = [
            [
                one["kind"],
                _shown(one["project"]),
                _shown(one["name"]),
                f"{one['fetched']:,}",
                _row_words(one),
            ]
            for one in report["rows"]
        ]
        lines += ["", "Rows", *_table(["rows of", "project", "object", "read", "outcomes"], table)]
        totals = report["totals"]
        lines += [
            f"  {totals['rows']['fetched']:,} rows, {totals['rows']['bytes']:,} bytes, {totals['rows_per_second']:,} rows/s"
        ]
    if report["planned_streams"]:
        table = [
            [
                stream["kind"],
                _shown(one["project"]),
                _shown(one["name"]),
                *map(_number, (one["rows"], one["rows_there"], one["bytes"])),
            ]
            for stream in report["planned_streams"]
            for one in stream["objects"]
        ]
        lines += [
            "",
            "Rows planned",
            *_table(["rows of", "project", "object", "rows", "there", "bytes (est.)"], table),
        ]
        lines += [f"  {estimate_text(report['estimate'])}"] if report["estimate"] else []
    lines += _skips(report) + _problem_lines(report) + _finding_lines(report)
    if report["verification"]:
        lines += ["", f"Verification: {report['verification']['text']}"]
        lines += [f"  {_difference(one)}" for one in report["verification"]["differences"]]
    lines += ["", "Next", *(f"  {command}" for command in report["next_commands"]), ""]
    return "\n".join(lines)


def short_text(report: Dict[str, Any]) -> str:
    """The report on one screen: counts per resource, problems, findings by kind."""
    source, dest = report["source"], report["destination"]
    lines = [
        f"{_headline(report)}: {source['org_name']} -> {dest['org_name']}, {report['duration_seconds']:.1f} s",
        *_table(
            ["objects", "listed", "outcomes"], _by_name(report["objects"], "resource", "listed")
        ),
    ]
    if report["rows"]:
        lines += _table(["rows", "read", "outcomes"], _by_name(report["rows"], "kind", "fetched"))
    if report["planned_streams"] and report["estimate"]:
        lines.append(f"Estimate: {estimate_text(report['estimate'])}")
    lines += _problem_lines(report)[:SHOWN_PER_KIND]
    kinds = Counter(
        {
            kind: sum(one.get("count", 1) for one in report["findings"] if one["kind"] == kind)
            for kind in KINDS
        }
    )
    lines += [
        f"{KINDS[kind].severity.capitalize()}: {KINDS[kind].about} ({count:,})"
        for kind, count in kinds.items()
        if count
    ]
    if report["verification"]:
        lines.append(f"Verification: {report['verification']['text']}")
    lines += [f"Next: {command}" for command in report["next_commands"]]
    return "\n".join(lines)


def _headline(report: Dict[str, Any]) -> str:
    more = ", more to do" if report["status"] == "stopped" else ""
    return f"{'Dry run' if report['dry_run'] else 'Migration'} {report['status']}{more}"


def summary_line(report: Dict[str, Any]) -> str:
    """The report in one line, for cron."""
    totals = {
        name: {one: n for one, n in report["totals"][name].items() if one in OUTCOMES}
        for name in ("objects", "rows")
    }
    words = "; ".join(f"{name} {_counts(counts) or 'none'}" for name, counts in totals.items())
    sides = f"{report['source']['org_name']} -> {report['destination']['org_name']}"
    place = f"{report['run_directory']}/{SUMMARY_FILE}"
    return f"{_headline(report)}: {sides}, {report['duration_seconds']:.1f} s; {words}; see {place}"


def summary_record(report: Dict[str, Any]) -> Dict[str, Any]:
    """The same for a script."""
    names = (
        "status",
        "run_directory",
        "duration_seconds",
        "totals",
        "findings_by_kind",
        "lag",
        "next_commands",
    )
    return {
        "event": "summary",
        "more_to_do": report["status"] == "stopped",
        **{name: report[name] for name in names},
    }


def _by_name(entries: List[Dict[str, Any]], name: str, count: str) -> List[List[str]]:
    """Table rows summed over projects."""
    rows = []
    for one in dict.fromkeys(entry[name] for entry in entries):
        ours = [entry for entry in entries if entry[name] == one]
        rows.append(
            [
                one,
                f"{sum(entry[count] for entry in ours):,}",
                _counts(_sum(entry["outcomes"] for entry in ours)) or "none",
            ]
        )
    return rows


def _number(count: Optional[int]) -> str:
    return "?" if count is None else f"{count:,}"


def _row_words(one: Dict[str, Any]) -> str:
    return (_counts(one["outcomes"]) or "none") + ("" if one["complete"] else "; NOT COMPLETE")


def _counts(outcomes: Dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in outcomes.items())


def _shown(name: str, width: int = 36) -> str:
    """A name in one line, cut to a width, without what would disturb a terminal."""
    plain = "".join(char if char.isprintable() else "?" for char in name)
    return plain if len(plain) <= width else plain[: width - 1] + "…"


def _table(head: List[str], rows: List[List[str]]) -> List[str]:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in [head, *rows]
    ]


def _skips(report: Dict[str, Any]) -> List[str]:
    reasons: Counter = Counter()
    for one in report["objects"]:
        for reason, count in one["skipped_by_reason"].items():
            reasons[f"{one['resource']}: {reason}"] += count
    return (
        ["", "Skipped", *(f"  {count:,} {reason}" for reason, count in sorted(reasons.items()))]
        if reasons
        else []
    )


def _problem_lines(report: Dict[str, Any]) -> List[str]:
    lines = []
    for one in report["problems"]:
        fields = f" in {', '.join(one['fields'])}" if one.get("fields") else ""
        where = f" of {_shown(one['project'])}" if one["project"] else ""
        lines.append(
            f"  {one['outcome']}{fields}: {one['resource']} {_shown(one['name'])!r}{where} [{one['id']}] {one.get('reason', '')}".rstrip()
        )
    return ["", "Not as in the source", *lines] if lines else []


def _finding_lines(report: Dict[str, Any]) -> List[str]:
    lines: List[str] = []
    for kind, (severity, sentence, *_) in KINDS.items():
        found = [one for one in report["findings"] if one["kind"] == kind]
        if found:
            lines += [
                "",
                f"{severity.capitalize()}: {sentence} ({sum(one.get('count', 1) for one in found):,})",
            ]
            lines += [f"  {_finding_line(one)}" for one in found[:SHOWN_PER_KIND]]
            if len(found) > SHOWN_PER_KIND:
                lines.append(f"  … and {len(found) - SHOWN_PER_KIND} more in {REPORT_FILE}")
    return lines


def _difference(one: Dict[str, Any]) -> str:
    """One line of the comparison that is not a match."""
    where = f" of {_shown(one['project'])}" if one["project"] else ""
    more = [str(one[name]) for name in ("row", "detail") if one.get(name)] + (
        [", ".join(one["fields"])] if one.get("fields") else []
    )
    known = f" [{one['id']}]" if one.get("id") else ""
    told = _shown(": ".join(more), 300)
    return f"{one['outcome']}: {one['resource']} {_shown(str(one['name']))!r}{where}{known} {told}".rstrip()


def comparison_text(result: Dict[str, Any]) -> str:
    """What a comparison found, for a person: a table, the tolerated changes, the first differences, where the rest is."""
    names = ("match", "differs", "missing", "extra", "unreadable")
    table = [
        [
            kind,
            *(f"{one['outcomes'].get(name, 0):,}" for name in names),
            f"{one['changed_since_copy']:,}",
        ]
        for kind, one in result["kinds"].items()
    ]
    lines = _table(["compared", *names, "changed since the copy"], table)
    tolerated = [
        f"{count:,} {name.replace('_', ' ')}" for name, count in result["tolerated"].items()
    ]
    lines += [f"Tolerated (see README): {', '.join(tolerated) or 'nothing'}"]
    if result["security"]:
        lines += [
            "Security:",
            *(f"  {_difference(one)}" for one in result["security"][:SHOWN_PER_KIND]),
        ]
    found = result["differences"]
    if found:
        lines += [
            "Not as in the source:",
            *(f"  {_difference(one)}" for one in found[:SHOWN_PER_KIND]),
        ]
        lines += ["  …"] if len(found) > SHOWN_PER_KIND else []
    return "\n".join([*lines, f"Verification: {result['text']}", f"All of it: {result['folder']}"])


def _finding_line(one: Dict[str, Any]) -> str:
    where = f" of {_shown(one['project'])}" if one.get("project") else ""
    parts = [f"{one['resource']} {_shown(str(one.get('name', '')))!r}{where}"]
    parts += [str(one[name]) for name in ("path", "detail", "ref") if one.get(name)]
    if one.get("count"):
        sampled = f" of the first {one['sampled']:,}" if one.get("sampled") else ""
        parts.append(f"{one['count']:,} rows{sampled}, first {_shown(str(one.get('row')))}")
    return ": ".join(parts) + (f" -> {one['next']}" if one.get("next") else "")


def lag_text(lag: Optional[Mapping[str, Any]]) -> str:
    """`12 rows written since 2026-01-15T00:00:00Z, the oldest 3 min ago`"""
    if not lag:
        return "not measured"
    if lag["rows"] is None:
        return "this server does not count"
    age = (
        f", the oldest {duration_text(lag['oldest_seconds'])} ago"
        if lag["oldest_seconds"] is not None
        else ""
    )
    return f"{lag['rows']:,} rows written since {lag['since']}{age}"


def duration_text(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `2.0 days`"""
    for size, word in ((86400, "days"), (3600, "h")):
        if seconds >= size:
            return f"{seconds / size:.1f} {word}"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def estimate_text(one: Dict[str, Any]) -> str:
    """The estimate in a line, for a person."""
    rate = one["queries_per_minute"]
    unknown = (
        f" and {one['uncounted_streams']:,} streams that the server does not count"
        if one["uncounted_streams"]
        else ""
    )
    pace = f"at {rate:g} queries a minute" if rate else "at the measured time of a page"
    return (
        f"{one['rows']:,} rows{unknown}, {one['bytes']:,} bytes, of which {one['processed_bytes']:,} count as processed data of the "
        f"destination (attachments beside it: about {one['attachments']:,}); {one['queries']:,} queries, {one['inserts']:,} inserts, "
        f"{one['seconds']:,} s {pace}; {one['minutes_at_20_queries_a_minute']:,} min at {STARTER_QUERIES_PER_MINUTE} queries a minute "
        "(Starter and Pro plans)"
    )
