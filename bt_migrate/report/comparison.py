"""The result of a verification as text. Pure."""

from __future__ import annotations

from typing import Any, Container, List, Mapping, Tuple

from bt_migrate.report.actions import count_and_noun
from bt_migrate.report.display import ID_COLUMNS, quoted, shown, table, wrapped

MATCH = "match"
CHANGED_LATER = "changed_later"
OTHER_OUTCOMES = (
    "differs", "missing", "extra", "unreadable", "cannot_move", "accepted", "only_in_dest",
    CHANGED_LATER,
)  # fmt: skip
SHOWN_DIFFERENCES = 20
# Group of differences -> its title.
FAILURES = {"security": "Security:", "differences": "Not as in the source:"}
EXPECTED = {
    "accepted": "Accepted:",
    "cannot_move": "Cannot be moved:",
    "only_in_dest": "Only in the destination:",
}
OUTCOME_GROUPS = {**FAILURES, **EXPECTED}
DETAIL_COLUMNS = 300


def kind_lines(kinds: Mapping[str, Mapping[str, Any]]) -> List[str]:
    """Returns the kinds of which everything matches in one list, and a table of the others."""
    compared = {kind: counted for kind, counted in kinds.items() if counted["outcomes"]}
    equal = {
        kind: counted["outcomes"][MATCH]
        for kind, counted in compared.items()
        if list(counted["outcomes"]) == [MATCH]
    }
    # `rows of logs` is no name of a resource.
    texts = (
        f"{count:,} {kind}" if " " in kind else count_and_noun(count, kind)
        for kind, count in equal.items()
    )
    lines = wrapped(f"All match: {', '.join(texts)}", first="") if equal else []
    others = {kind: counted for kind, counted in compared.items() if kind not in equal}
    return [*lines, *_table(others)] if others else lines


def tolerated_lines(result: Mapping[str, Any]) -> List[str]:
    counts = [f"{count:,} {name.replace('_', ' ')}" for name, count in result["tolerated"].items()]
    return wrapped(f"Tolerated changes: {', '.join(counts) or 'none'}", first="")


def _table(kinds: Mapping[str, Mapping[str, Any]]) -> List[str]:
    """Returns a table of kinds by outcome, without empty columns."""
    counts = {
        kind: {**counted["outcomes"], CHANGED_LATER: counted["changed_since_copy"]}
        for kind, counted in kinds.items()
    }
    present = {name for counted in counts.values() for name, count in counted.items() if count}
    names = [MATCH, *(name for name in OTHER_OUTCOMES if name in present)]
    rows = [
        [kind, *(f"{counted[name]:,}" if counted.get(name) else "-" for name in names)]
        for kind, counted in counts.items()
    ]
    return table(["compared", *(name.replace("_", " ") for name in names)], rows)


def verdict_line(result: Mapping[str, Any], *, is_old: bool = False) -> str:
    """Returns the verdict in one line, with its time if it `is_old` (of an earlier start)."""
    at = f" (as of {result.get('at', 'an earlier start')})" if is_old else ""
    return f"Verification: {result['text']}{at}"


def difference_lines(
    result: Mapping[str, Any],
    groups: Mapping[str, str] = OUTCOME_GROUPS,
    limit: int = SHOWN_DIFFERENCES,
    shown_elsewhere: Container[Tuple[str, str]] = (),
) -> List[str]:
    """Returns the first differences of each group, those that matter for security first.

    `shown_elsewhere`: resource and id of objects.
    """
    lines: List[str] = []
    for name, title in groups.items():
        differences = [
            difference
            for difference in result.get(name) or []
            if (
                difference.get("row")
                or (difference["resource"], difference.get("id")) not in shown_elsewhere
            )
            and not (name == "differences" and difference.get("security"))
        ]
        lines += [title] if differences else []
        for difference in differences[:limit]:
            lines += wrapped(difference_line(difference, is_named=name in EXPECTED))
        if len(differences) > limit:
            lines.append(f"  … and {len(differences) - limit:,} more")
    return lines


def difference_line(difference: Mapping[str, Any], *, is_named: bool = False) -> str:
    """Returns one difference as a line. `is_named`: a title says already what its outcome is."""
    line = f"{difference['resource']} {quoted(difference.get('name', ''))}"
    if not is_named:
        line = f"{difference['outcome']}: {line}"
    if difference.get("project"):
        line += f" of {shown(difference['project'])}"
    if difference.get("id"):
        line += f" [{difference['id'][:ID_COLUMNS]}]"
    details = [str(difference[name]) for name in ("row", "detail") if difference.get(name)]
    if difference.get("fields"):
        details.append(", ".join(difference["fields"]))
    return f"{line}: {shown(': '.join(details), DETAIL_COLUMNS)}" if details else line
