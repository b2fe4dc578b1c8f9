"""migration_report.json and migration_summary.txt, from the state files of the run: the same numbers after one process or after
ten.

Objects and rows are never added up. For each resource and project the outcomes add up to what was listed.
"""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence

from bt_migrate import __version__
from bt_migrate.errors import EXIT_INCOMPLETE, EXIT_OK, StateError
from bt_migrate.findings import FAILURE, KINDS, finding
from bt_migrate.outgoing import stream_findings
from bt_migrate.resources import SELECTABLE
from bt_migrate.row_plan import estimate_text
from bt_migrate.runs import RunDirectory, window_of
from bt_migrate.state import DIFFERS, FAILED, OUTCOMES, ObjectStates, StreamState, write_json

REPORT_VERSION = 1
REPORT_FILE = "migration_report.json"
SUMMARY_FILE = "migration_summary.txt"
FINDINGS_FILE = "findings.jsonl"
SHOWN_PER_KIND = 20  # findings of one kind in the summary; the report holds all
ONLY_OF_PLAN = ("--dry-run", "--plan-out", "--fail-on-loss", "--new-run")
KEPT_BY_RUN = ("--state-dir", "--new-run", "--created-after", "--created-before", "--window", "--tz", "--fill-gaps")
ONLY_OF_PART = ("--shard", "--no-rows")
WITHOUT_VALUE = frozenset(("--dry-run", "--fail-on-loss", "--new-run", "--fill-gaps", "--no-rows"))
ORDER = {name: position for position, name in enumerate(("projects", *SELECTABLE))}


def build_report(run: RunDirectory, status: str) -> Dict[str, Any]:
    """The whole report as a dict; `status` is completed (or incomplete, if not everything arrived), interrupted or failed."""
    everything = sorted(run.all_objects(), key=lambda one: (ORDER.get(one.resource, 99), one.project))
    objects = [one for one in everything if one.listed]
    round_ = run.data.get("round", 0)
    streams = [one for one in run.all_streams() if one.round == round_ or not one.done]  # of a round: those that had something new
    findings = [record for one in everything for records in one.findings.values() for record in records]
    findings += [record for one in streams for record in _findings_of_stream(one)]
    findings += run.data.get("validation", {}).get("findings", [])
    row_plans = list(run.data.get("row_plans", {}).values()) if run.data["dry_run"] else []
    findings += [record for plan in row_plans for record in plan["findings"]]  # of the first rows
    findings += run.data.get("window_gaps", [])
    seconds = round(sum(session.get("seconds", 0) for session in run.data["sessions"]), 3)
    rows = sum(one.counts["fetched"] for one in streams)
    size = sum(one.counts["bytes"] for one in streams)
    object_counts, row_counts = [_object_counts(one) for one in objects], [_row_counts(one) for one in streams]
    data = run.data
    report: Dict[str, Any] = {
        "report_version": REPORT_VERSION,
        "tool_version": __version__,
        "status": status,
        "dry_run": data["dry_run"],
        "run_directory": str(run.path),
        "source": data["source"],
        "destination": data["dest"],
        "selection": data["selection"],
        "round": round_,
        "marks": data.get("marks", {}),
        "started": data["created"],
        "sessions": data["sessions"],
        "duration_seconds": seconds,
        "phases_done": data["phases_done"],
        "objects": object_counts,
        "rows": row_counts,
        "planned_streams": [one for plan in row_plans for one in plan["streams"]],
        "estimate": data.get("estimate"),
        "totals": {
            "objects": _sum(one["outcomes"] for one in object_counts),
            "rows": {**_sum(one["outcomes"] for one in row_counts), "fetched": rows, "bytes": size},
            "rows_per_second": round(rows / seconds, 1) if seconds else 0,
            "bytes_per_second": round(size / seconds) if seconds else 0,
        },
        "verification": data.get("verification"),
        "lag": data.get("lag"),
        "problems": [record for one in objects for record in _problems(one)],
        "findings": findings,
        "findings_by_kind": dict(Counter(record["kind"] for record in findings)),
    }
    if status == status_of(EXIT_OK):
        report["status"] = status_of(exit_code_of(report))
    return {**report, "next_commands": next_commands(run, report["status"])}


def _object_counts(one: ObjectStates) -> Dict[str, Any]:
    outcomes = Counter(entry["outcome"] for entry in one.outcomes.values())
    reasons = Counter(entry.get("reason", "no reason") for entry in one.outcomes.values() if entry["outcome"] == "skipped")
    return {
        "resource": one.resource, "project": one.project, "listed": one.listed, "outcomes": dict(sorted(outcomes.items())),
        "skipped_by_reason": dict(sorted(reasons.items())),
    }  # fmt: skip


def _row_counts(one: StreamState) -> Dict[str, Any]:
    outcomes = {name: one.counts[name] for name in OUTCOMES if one.counts[name]}
    facts = {name: one.header.get(name) for name in ("kind", "project", "name", "source_id", "dest_id")}
    rate = round(one.counts["fetched"] / one.seconds, 1) if one.seconds else 0
    more = {
        "fetched": one.counts["fetched"],
        "bytes": one.counts["bytes"],
        "seconds": round(one.seconds, 3),
        "rows_per_second": rate,
        **({"deleted": one.deleted} if one.deleted else {}),
    }
    return {**facts, "outcomes": outcomes, **more, "complete": one.done, "error": one.error}


def _findings_of_stream(one: StreamState) -> List[Dict[str, Any]]:
    records = stream_findings(one.header, one.findings)
    if one.error:
        facts = {
            "resource": one.header["kind"],
            "id": one.header["source_id"],
            "name": one.header["name"],
            "project": one.header["project"],
        }
        records.append(finding("stream_failed", **facts, detail=one.error))
    return records


def _problems(one: ObjectStates) -> List[Dict[str, Any]]:
    """Objects that should have arrived as they are in the source and did not."""
    return [
        {"resource": one.resource, "project": one.project, "id": source_id, **entry}
        for source_id, entry in one.outcomes.items()
        if entry["outcome"] in (FAILED, DIFFERS)
    ]


def _sum(counts: Iterable[Dict[str, int]]) -> Dict[str, int]:
    total: Counter = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def exit_code_of(report: Dict[str, Any]) -> int:
    """0 when everything arrived that can; what the API cannot carry by its nature is no failure."""
    failures = report["problems"] or any(one["severity"] == FAILURE for one in report["findings"])
    open_ends = any(not one["complete"] for one in report["rows"])
    unverified = (report["verification"] or {}).get("arrived") is False
    return EXIT_INCOMPLETE if failures or open_ends or unverified else EXIT_OK


def next_commands(run: RunDirectory, status: str) -> List[str]:
    """What to run next, ready to paste."""
    data = run.data
    command, place = data["command"], ["--state-dir", str(run.path)]
    sessions = [one for one in data["sessions"] if one["command"] == command and "arguments" in one]
    given: List[str] = sessions[-1]["arguments"] if sessions else []
    part = "shard" in data or "part" in data["selection"]
    if not part:  # as a joined run is none, whose last start was that of a part
        given = _without(given, ONLY_OF_PART)
    if "--demo" in given:
        return ["bin/validate  # with your keys and URLs in .env (see .env.example): looks whether all is there for a move"]
    if data["dry_run"]:
        return [f"{_line(command, _without(given, ONLY_OF_PLAN))}  # carries the plan out"]
    if status in ("interrupted", "failed", "stopped", "merged"):
        return [f"{_line(command, [*_without(given, KEPT_BY_RUN), *place])}  # goes on where it stopped"]
    if status == "incomplete":
        again = _line(command, _without(given, ("--new-run",)))
        return [f"{again}  # once the causes are mended: what is there is found, what failed is tried again"]
    if command == "validate":
        return [f"{_line('migrate-all', [*_without(given, ONLY_OF_PLAN), '--dry-run'])}  # shows the plan, writes nothing there"]
    if part:
        return ["bin/merge-runs  # joins the runs of all shards, and that of the objects, once all are done"]
    if data.get("verification") and command == "migrate-all" and not any(window_of(run).values()):
        sync = _line(command, [*_without(given, (*KEPT_BY_RUN, "--since-last")), *place, "--since-last"])
        return [f"{sync}  # brings what is written to the source from now on"]
    return [f"{_line('verify', place)}  # compares both organizations"]


def _line(command: str, arguments: Sequence[str]) -> str:
    return shlex.join([f"bin/{command}", *arguments])


def _without(arguments: Sequence[str], names: Sequence[str]) -> List[str]:
    """The arguments without these options and their values."""
    left: List[str] = []
    values = iter(arguments)
    for one in values:
        name, equals, _ = one.partition("=")
        if name not in names:
            left.append(one)
        elif not equals and name not in WITHOUT_VALUE:
            next(values, None)
    return left


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
                [one["resource"], _shown(one["project"]), f"{one['listed']:,}", _counts(one["outcomes"])]
                for one in report["objects"]
            ],
        ),
    ]
    if report["rows"]:
        table = [
            [one["kind"], _shown(one["project"]), _shown(one["name"]), f"{one['fetched']:,}", _row_words(one)]
            for one in report["rows"]
        ]
        lines += ["", "Rows", *_table(["rows of", "project", "object", "read", "outcomes"], table)]
        totals = report["totals"]
        lines += [
            f"  {totals['rows']['fetched']:,} rows, {totals['rows']['bytes']:,} bytes, {totals['rows_per_second']:,} rows/s"
        ]
    if report["planned_streams"]:
        table = [
            [stream["kind"], _shown(one["project"]), _shown(one["name"]), *map(_number, (one["rows"], one["rows_there"], one["bytes"]))]
            for stream in report["planned_streams"]
            for one in stream["objects"]
        ]
        lines += ["", "Rows planned", *_table(["rows of", "project", "object", "rows", "there", "bytes (est.)"], table)]
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
        *_table(["objects", "listed", "outcomes"], _by_name(report["objects"], "resource", "listed")),
    ]
    if report["rows"]:
        lines += _table(["rows", "read", "outcomes"], _by_name(report["rows"], "kind", "fetched"))
    if report["planned_streams"] and report["estimate"]:
        lines.append(f"Estimate: {estimate_text(report['estimate'])}")
    lines += _problem_lines(report)[:SHOWN_PER_KIND]
    kinds = Counter({kind: sum(one.get("count", 1) for one in report["findings"] if one["kind"] == kind) for kind in KINDS})
    lines += [f"{KINDS[kind].severity.capitalize()}: {KINDS[kind].about} ({count:,})" for kind, count in kinds.items() if count]
    if report["verification"]:
        lines.append(f"Verification: {report['verification']['text']}")
    lines += [f"Next: {command}" for command in report["next_commands"]]
    return "\n".join(lines)


def _headline(report: Dict[str, Any]) -> str:
    more = ", more to do" if report["status"] == "stopped" else ""
    return f"{'Dry run' if report['dry_run'] else 'Migration'} {report['status']}{more}"


def summary_line(report: Dict[str, Any]) -> str:
    """The report in one line, for cron."""
    totals = {name: {one: n for one, n in report["totals"][name].items() if one in OUTCOMES} for name in ("objects", "rows")}
    words = "; ".join(f"{name} {_counts(counts) or 'none'}" for name, counts in totals.items())
    sides = f"{report['source']['org_name']} -> {report['destination']['org_name']}"
    place = f"{report['run_directory']}/{SUMMARY_FILE}"
    return f"{_headline(report)}: {sides}, {report['duration_seconds']:.1f} s; {words}; see {place}"


def summary_record(report: Dict[str, Any]) -> Dict[str, Any]:
    """The same for a script."""
    names = ("status", "run_directory", "duration_seconds", "totals", "findings_by_kind", "lag", "next_commands")
    return {"event": "summary", "more_to_do": report["status"] == "stopped", **{name: report[name] for name in names}}


def _by_name(entries: List[Dict[str, Any]], name: str, count: str) -> List[List[str]]:
    """Table rows summed over projects."""
    rows = []
    for one in dict.fromkeys(entry[name] for entry in entries):
        ours = [entry for entry in entries if entry[name] == one]
        rows.append(
            [one, f"{sum(entry[count] for entry in ours):,}", _counts(_sum(entry["outcomes"] for entry in ours)) or "none"]
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
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head, *rows]]


def _skips(report: Dict[str, Any]) -> List[str]:
    reasons: Counter = Counter()
    for one in report["objects"]:
        for reason, count in one["skipped_by_reason"].items():
            reasons[f"{one['resource']}: {reason}"] += count
    return ["", "Skipped", *(f"  {count:,} {reason}" for reason, count in sorted(reasons.items()))] if reasons else []


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
            lines += ["", f"{severity.capitalize()}: {sentence} ({sum(one.get('count', 1) for one in found):,})"]
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
        [kind, *(f"{one['outcomes'].get(name, 0):,}" for name in names), f"{one['changed_since_copy']:,}"]
        for kind, one in result["kinds"].items()
    ]
    lines = _table(["compared", *names, "changed since the copy"], table)
    tolerated = [f"{count:,} {name.replace('_', ' ')}" for name, count in result["tolerated"].items()]
    lines += [f"Tolerated (see README): {', '.join(tolerated) or 'nothing'}"]
    if result["security"]:
        lines += ["Security:", *(f"  {_difference(one)}" for one in result["security"][:SHOWN_PER_KIND])]
    found = result["differences"]
    if found:
        lines += ["Not as in the source:", *(f"  {_difference(one)}" for one in found[:SHOWN_PER_KIND])]
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


def write_report(run: RunDirectory, report: Dict[str, Any]) -> None:
    """Write the report, the summary and the findings into the run directory."""
    write_json(run.path / REPORT_FILE, report)
    _write_private(run.path / SUMMARY_FILE, summary_text(report))
    _write_private(run.path / FINDINGS_FILE, "".join(json.dumps(one) + "\n" for one in report["findings"]))


def _write_private(path: Path, text: str) -> None:
    """Raises StateError."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise StateError(f"{path}: cannot be written ({error.strerror}); make room, then run again") from None


def status_of(code: Optional[int]) -> str:
    return {EXIT_OK: "completed", EXIT_INCOMPLETE: "incomplete", 130: "interrupted"}.get(-1 if code is None else code, "failed")
