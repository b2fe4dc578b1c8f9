"""The sections of a report as lines: the same for the terminal and for migration_summary.txt. Pure.

Order: verdict, to do, failed, table, lost, times.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional

from bt_migrate.model.outcomes import OUTCOMES
from bt_migrate.report.actions import count_and_noun, problem_line, problem_texts
from bt_migrate.report.comparison import FAILURES, difference_lines, verdict_line
from bt_migrate.report.display import (
    LEAST_RATE,
    duration_text,
    escaped,
    plural,
    section,
    table,
    wrapped,
)
from bt_migrate.report.measures import deletes_text, estimate_text

NOT_CREATED = "not_created"
# Only a write shows it, and a dry run sends none.
NOT_TRIED = "Destination key can write: not tried in a dry run; bin/validate tries it"
# a space at which a line is not broken
UNBROKEN = "\u00a0"
# share of a start that is shown if it belongs to no phase
LEAST_BETWEEN = 0.1
WORK = {"validate": "Validation", "verify": "Verification"}
MERGED = "merged"
STATUS_WORDS = {
    "stopped": "stopped, more to do",
    "failed": "ended with an error",
}


def headline(report: Mapping[str, Any]) -> str:
    """`Migration incomplete: acme -> globex`, `4 runs merged: acme -> globex`"""
    status = STATUS_WORDS.get(report["status"], report["status"])
    work = "Dry run" if report["dry_run"] else WORK.get(report["command"], "Migration")
    if work == "Validation" and status == "completed":
        status = "passed"
    sides = " -> ".join(escaped(report[side]["org_name"]) for side in ("source", "destination"))
    if status == MERGED:
        return f"{plural(len(report['merged']), 'run')} merged: {sides}"
    return f"{work} {status}: {sides}"


def verdict_lines(report: Mapping[str, Any]) -> List[str]:
    """Returns the headline, why the run ended early, and the result of the verification."""
    lines = wrapped(headline(report), first="")
    error = report["this_start"].get("error")
    if error and error != report["status"]:
        lines += wrapped(f"Ended by: {escaped(error)}")
    if report["verification"]:
        is_old = "verify" not in report["this_start"]["phases"]
        lines += wrapped(verdict_line(report["verification"], is_old=is_old), first="")
    return lines


def to_do_lines(report: Mapping[str, Any]) -> List[str]:
    return section("To do:", (line["text"] for line in report["to_do"]))


def accepted_lines(report: Mapping[str, Any]) -> List[str]:
    return section("Accepted:", (line["text"] for line in report["accepted"]))


def lost_lines(report: Mapping[str, Any]) -> List[str]:
    return section("Lost:", (line["text"] for line in report["lost"]))


def failed_lines(report: Mapping[str, Any], limit: Optional[int] = None) -> List[str]:
    """Returns what should have arrived and did not: kinds of failures, then objects, then rows.

    With a `limit`, objects that failed for the same reason share one entry, and each is named once.
    """
    problems = report["problems"]
    if limit is None:
        texts = [problem_line(problem) for problem in problems]
        lines = section("Failed:", [*(line["text"] for line in report["failed"]), *texts])
        return [*lines, *_differences(report)]
    texts = problem_texts(problems)
    lines = section("Failed:", [*_without_objects(report), *texts[:limit]])
    if len(texts) > limit:
        lines.append(f"  … and {len(texts) - limit:,} more in the report")
    named = {(problem["resource"], problem["id"]) for problem in problems}
    return [*lines, *_differences(report, FAILURES, limit, named)]


def _differences(report: Mapping[str, Any], *shown: Any) -> List[str]:
    """Returns what the comparison found, if it did not end as well as it can."""
    result = report["verification"]
    return difference_lines(result, *shown) if result and not result["equal"] else []


def _without_objects(report: Mapping[str, Any]) -> List[str]:
    """Returns the failures without those of objects, if these are listed by name."""
    listed = NOT_CREATED if report["problems"] else ""
    return [line["text"] for line in report["failed"] if line["kind"] != listed]


def table_lines(report: Mapping[str, Any]) -> List[str]:
    """Returns outcomes by resource, then by kind of rows."""
    objects = _by_name(report["objects"], "resource")
    rows = _by_name(report["rows"], "kind")
    lines = _outcome_table("objects", objects, count_and_noun)
    lines += _outcome_table("rows", rows, _amount_of_rows)
    return [*lines, *estimate_lines(report)]


def estimate_lines(report: Mapping[str, Any]) -> List[str]:
    """Returns the right to write, rows, bytes, time and deletes of a plan; nothing after another
    start.
    """
    estimate = report["estimate"]
    lines = [NOT_TRIED] if report["dry_run"] else []
    if not (report["planned_streams"] and estimate):
        return lines
    lines += wrapped(f"Estimate: {estimate_text(estimate)}", first="")
    deletes = deletes_text(estimate.get("deletes") or {})
    return [*lines, *wrapped(f"Would delete: {deletes}", first="")] if deletes else lines


def _by_name(entries: Iterable[Mapping[str, Any]], name: str) -> Dict[str, Counter[str]]:
    sums: Dict[str, Counter[str]] = {}
    for entry in entries:
        sums.setdefault(entry[name], Counter()).update(entry["outcomes"])
    return sums


def _amount_of_rows(count: int, kind: str) -> str:
    return f"{count:,} of {kind}"


def _outcome_table(
    title: str, sums: Mapping[str, Counter[str]], amount: Callable[[int, str], str]
) -> List[str]:
    """Returns a table of names by outcome. Names with the same single outcome share one line."""
    if not sums:
        return []
    uniform = _uniform(sums)
    others = {name: counts for name, counts in sums.items() if name not in uniform}
    lines = []
    if uniform:
        outcome = next(iter(next(iter(uniform.values()))))
        names = ", ".join(amount(counts[outcome], name) for name, counts in uniform.items())
        lines += wrapped(f"{title.capitalize()} all {outcome}: {names}", first="")
    if others:
        used = [
            name
            for name in outcomes_in_order(others)
            if any(counts[name] for counts in others.values())
        ]
        rows = [
            [
                name,
                f"{sum(counts.values()):,}",
                *(f"{counts[outcome]:,}" if counts[outcome] else "-" for outcome in used),
            ]
            for name, counts in others.items()
        ]
        lines += table([title, "total", *used], rows)
    return lines


def outcomes_in_order(sums: Mapping[str, Counter[str]]) -> List[str]:
    usual = dict.fromkeys(OUTCOMES)
    return list({**usual, **{name: None for counts in sums.values() for name in counts}})


def _uniform(sums: Mapping[str, Counter[str]]) -> Dict[str, Counter[str]]:
    """Returns the names whose only outcome is the most common one, if they are at least three."""
    single = Counter(next(iter(counts)) for counts in sums.values() if len(counts) == 1)
    if not single or single.most_common(1)[0][1] < 3:
        return {}
    outcome = single.most_common(1)[0][0]
    return {name: counts for name, counts in sums.items() if set(counts) == {outcome}}


def time_lines(report: Mapping[str, Any]) -> List[str]:
    """Returns duration, rows and rate of this start and the time of each of its phases.

    Then those of the run if it had other starts. The starts of a merged run are those of its parts.
    """
    start, run = report["this_start"], report["whole_run"]
    # of one phase, the time of the start says as much
    times = ", ".join(_phase_times(start)) if len(start["phases"]) > 1 else ""
    phases = f" ({times})" if times else ""
    is_merged = report["status"] == MERGED
    lines = [] if is_merged else wrapped(f"This start: {_amount(start)}{phases}", first="")
    if run["starts"] > 1:
        # Of a start that was killed, only what its last status said is known.
        killed = any(not session.get("ended") for session in report["sessions"][:-1])
        least = "at least " if killed else ""
        lines += wrapped(f"The run, {run['starts']:,} starts: {least}{_amount(run)}", first="")
    return [line.replace(UNBROKEN, " ") for line in lines]


def _phase_times(start: Mapping[str, Any]) -> Iterator[str]:
    """Yields `logs 4.8 s` for each phase, and the time between phases if it is considerable."""
    for name, seconds in start["phases"].items():
        if seconds:  # not for a verification that was not asked for
            text = f"{name.replace('migrate-', '')} {duration_text(seconds)}"
            yield text.replace(" ", UNBROKEN)

    between = start["seconds"] - sum(start["phases"].values())
    if between > LEAST_BETWEEN * start["seconds"]:
        # Rows that a phase copies in the background are not part of its time.
        yield f"between phases {duration_text(between)}".replace(" ", UNBROKEN)


def _amount(times: Mapping[str, Any]) -> str:
    text = duration_text(times["seconds"])
    if times["rows"]:
        text += f", {plural(times['rows'], 'row')}"
    if times["rows_per_second"] >= LEAST_RATE:
        text += f", {times['rows_per_second']:,.0f} rows/s"
    return text


def next_lines(report: Mapping[str, Any]) -> List[str]:
    """Returns the command to run next as the last line. A long comment is on the line before."""
    lines = []
    for text in report["next_commands"]:
        if len(text) + len("Next: ") <= 80:
            lines.append(f"Next: {text}")
        else:
            command, _, comment = text.partition("  # ")
            lines += [f"# {comment}"] if comment else []
            lines.append(f"Next: {command}")
    return lines
