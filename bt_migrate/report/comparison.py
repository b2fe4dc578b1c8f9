"""The result of a verification as text. Pure."""

from __future__ import annotations

from typing import Any, List, Mapping

from bt_migrate.report.display import ID_COLUMNS, shown, table, wrapped

COMPARED_OUTCOMES = ("match", "differs", "missing", "extra", "unreadable", "cannot_move")
ACCEPTED = "accepted"
SHOWN_DIFFERENCES = 20
DETAIL_COLUMNS = 300


def comparison_text(result: Mapping[str, Any]) -> str:
    """Returns the verdict, the differences, a table, tolerated changes, and where the rest is."""
    lines = [*wrapped(verdict_line(result), first=""), *difference_lines(result)]
    kinds = result["kinds"].values()
    has_accepted = any(ACCEPTED in counts["outcomes"] for counts in kinds)
    outcomes = (*COMPARED_OUTCOMES, ACCEPTED) if has_accepted else COMPARED_OUTCOMES
    rows = [
        [
            kind,
            *(f"{counts['outcomes'].get(name, 0):,}" for name in outcomes),
            f"{counts['changed_since_copy']:,}",
        ]
        for kind, counts in result["kinds"].items()
    ]
    titles = [name.replace("_", " ") for name in outcomes]
    lines += table(["compared", *titles, "changed later"], rows)
    tolerated = [
        f"{count:,} {name.replace('_', ' ')}" for name, count in result["tolerated"].items()
    ]
    lines += wrapped(f"Tolerated changes: {', '.join(tolerated) or 'none'}", first="")
    return "\n".join([*lines, f"Details: {result['folder']}"])


def verdict_line(result: Mapping[str, Any], *, is_old: bool = False) -> str:
    """With its time, if another start made it."""
    at = f" (as of {result.get('at', 'an earlier start')})" if is_old else ""
    return f"Verification: {result['text']}{at}"


def difference_lines(result: Mapping[str, Any]) -> List[str]:
    """Returns what is less secure than in the source, then what differs, the first of each."""
    lines: List[str] = []
    for title, name in (
        ("Security:", "security"),
        ("Not as in the source:", "differences"),
        ("Accepted:", "accepted"),
        ("Cannot be moved:", "cannot_move"),
    ):
        differences = result.get(name) or []
        if not differences:
            continue
        lines.append(title)
        for difference in differences[:SHOWN_DIFFERENCES]:
            lines += wrapped(difference_line(difference))
        if len(differences) > SHOWN_DIFFERENCES:
            lines.append("  …")
    return lines


def difference_line(difference: Mapping[str, Any]) -> str:
    """Returns one line of the comparison that is not a match."""
    name = shown(difference.get("name", ""))
    line = f"{difference['outcome']}: {difference['resource']} {name!r}"
    if difference.get("project"):
        line += f" of {shown(difference['project'])}"
    if difference.get("id"):
        line += f" [{difference['id'][:ID_COLUMNS]}]"
    details = [str(difference[name]) for name in ("row", "detail") if difference.get(name)]
    if difference.get("fields"):
        details.append(", ".join(difference["fields"]))
    return f"{line} {shown(': '.join(details), DETAIL_COLUMNS)}".rstrip()
