"""migration_summary.txt: the report in the order of the screen, with all details. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Sequence

from bt_migrate.model.findings import KINDS
from bt_migrate.model.outcomes import CREATED, FOUND, UPDATED, WOULD_CREATE, WOULD_UPDATE
from bt_migrate.model.portions import portions
from bt_migrate.report.actions import rows_of
from bt_migrate.report.display import (
    counts_text,
    escaped,
    number,
    plural,
    quoted,
    shown,
    size_text,
    table,
    wrapped,
)
from bt_migrate.report.files import REPORT_FILE
from bt_migrate.report.sections import (
    accepted_lines,
    failed_lines,
    lost_lines,
    next_lines,
    table_lines,
    time_lines,
    to_do_lines,
    verdict_lines,
)
from bt_migrate.report.validation import validation_lines

# how many findings of one kind the summary lists; the report has all
SHOWN_PER_KIND = 20
# columns of projects in the matrix, which is 80 characters wide
MATRIX_PROJECTS = 4
MATRIX_COLUMNS = 12
WORDS = "arrived, +skipped, !not arrived"
ARRIVED = (CREATED, FOUND, UPDATED)
PLANNED = (WOULD_CREATE, WOULD_UPDATE)


def summary_text(report: Mapping[str, Any]) -> str:
    """Returns the whole summary."""
    source, dest = report["source"], report["destination"]
    blocks = [
        [
            *verdict_lines(report),
            f"  from {escaped(source['url'])} to {escaped(dest['url'])}",
            f"  run {report['run_directory']}",
        ],
        to_do_lines(report),
        failed_lines(report),
        accepted_lines(report),
        table_lines(report),
        validation_lines(report),
        matrix_lines(report),
        _skipped_lines(report),
        _row_lines(report),
        _plan_lines(report),
        lost_lines(report),
        *_finding_blocks(report["findings"]),
        time_lines(report),
        next_lines(report),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def matrix_lines(report: Mapping[str, Any]) -> List[str]:
    """Returns a table of resources by project: number arrived, `+2` skipped, `!1` not arrived.

    Of a plan, number that is planned or there already.
    """
    cells: Dict[str, Dict[str, Counter[str]]] = {}
    for entry in report["objects"]:
        by_project = cells.setdefault(entry["resource"], {})
        by_project.setdefault(entry["project"], Counter()).update(entry["outcomes"])
    projects = list(dict.fromkeys(entry["project"] for entry in report["objects"]))
    if len(projects) < 2:
        return []
    words = "planned or there, +skipped, !other" if report["dry_run"] else WORDS
    lines = [f"Objects by project ({words})"]
    for block in portions(projects, MATRIX_PROJECTS):
        names = [shown(project or "(organization)", MATRIX_COLUMNS) for project in block]
        rows = [
            [resource, *(_cell(by_project.get(project)) for project in block)]
            for resource, by_project in cells.items()
            if any(by_project.get(project) for project in block)
        ]
        lines += table(["resource", *names], rows)
    return lines


def _cell(outcomes: Any) -> str:
    if not outcomes:
        return "-"
    arrived = sum(outcomes[name] for name in (*ARRIVED, *PLANNED))
    skipped = outcomes["skipped"]
    others = sum(outcomes.values()) - arrived - skipped
    parts = [f"{arrived:,}"]
    parts += [f"+{skipped:,}"] if skipped else []
    parts += [f"!{others:,}"] if others else []
    return " ".join(parts)


def _skipped_lines(report: Mapping[str, Any]) -> List[str]:
    reasons: Counter[str] = Counter()
    for entry in report["objects"]:
        for reason, count in entry["skipped_by_reason"].items():
            reasons[f"{entry['resource']}: {reason}"] += count
    lines = [
        line
        for reason, count in sorted(reasons.items())
        for line in wrapped(f"{count:,} {escaped(reason)}")
    ]
    return ["Skipped", *lines] if lines else []


def _row_lines(report: Mapping[str, Any]) -> List[str]:
    if not report["rows"]:
        return []
    lines = ["Rows"]
    for counts in report["rows"]:
        end = "" if counts["complete"] else "; NOT COMPLETE"
        place = _place(counts["kind"], counts["name"], counts["project"])
        outcomes = counts_text(counts["outcomes"])
        lines += wrapped(f"{place}: {plural(counts['fetched'], 'row')}: {outcomes}{end}")
    totals = report["totals"]["rows"]
    lines.append(f"  {plural(totals['fetched'], 'row')} in all, {size_text(totals['bytes'])}")
    return lines


def _plan_lines(report: Mapping[str, Any]) -> List[str]:
    """Returns the counts of a dry run: rows in the source, rows in the destination, bytes."""
    lines: List[str] = []
    for stream in report["planned_streams"]:
        for planned in stream["objects"]:
            place = _place(stream["kind"], planned["name"], planned["project"])
            there = number(planned["rows_there"])
            size = "? bytes" if planned["bytes"] is None else size_text(planned["bytes"])
            lines += wrapped(f"{place}: {plural(planned['rows'], 'row')}, {there} there, {size}")
    return ["Rows planned", *lines] if lines else []


def _place(kind: str, name: str, project: str) -> str:
    if kind == "logs":
        return f"logs of {shown(project)}"
    return f"{kind} {quoted(name)} of {shown(project)}"


def _finding_blocks(findings: Sequence[Mapping[str, Any]]) -> Iterator[List[str]]:
    for kind, (severity, sentence, *_) in KINDS.items():
        records = [record for record in findings if record["kind"] == kind]
        if not records:
            continue
        title = f"{severity.capitalize()}: {sentence} ({_amount(records)})"
        lines = wrapped(title, first="")
        for record in records[:SHOWN_PER_KIND]:
            lines += wrapped(_finding_line(record))
        others = len(records) - SHOWN_PER_KIND
        yield [*lines, f"  … and {others:,} more in {REPORT_FILE}"] if others > 0 else lines


def _amount(records: Iterable[Mapping[str, Any]]) -> str:
    """Returns the number of findings, and the number of their rows."""
    records = list(records)
    rows = sum(map(rows_of, records))
    text = plural(len(records), "finding")
    return f"{text}, {plural(rows, 'row')}" if rows else text


def _finding_line(record: Mapping[str, Any]) -> str:
    place = f"{record['resource']} {quoted(record.get('name', ''))}"
    if record.get("project"):
        place += f" of {shown(record['project'])}"
    parts = [place]
    parts += [escaped(str(record[name])) for name in ("path", "detail", "ref") if record.get(name)]
    if record.get("count"):
        sampled = f" of the first {record['sampled']:,}" if record.get("sampled") else ""
        first = shown(record.get("row"))
        noun = "row" if record["count"] == rows_of(record) else "place"
        parts.append(f"{plural(record['count'], noun)}{sampled} ({first})")
    return ": ".join(parts) + (f" -> {escaped(record['next'])}" if record.get("next") else "")
