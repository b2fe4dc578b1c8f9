"""The result of bin/validate as lines. Pure."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from bt_migrate.model.findings import UNSEEN
from bt_migrate.report.actions import count_and_noun
from bt_migrate.report.display import escaped, number, plural, wrapped
from bt_migrate.report.measures import estimate_text, states_text

# Result of the validation about the right to write -> text.
WRITE_RIGHT = {
    "not asked in a dry run": "not tested (dry run)",
    "shown by an earlier run": "yes (an earlier run has written)",
}


def validation_lines(report: Mapping[str, Any], items: Optional[int] = None) -> List[str]:
    """Returns rights, counts, sizes and times; nothing if the program is not bin/validate.

    Of what will not move, the first `items` are named (None: all).
    """
    validation = report["validation"]
    if not validation or report["this_start"]["command"] != "validate":
        return []
    right = validation["write_right"]
    lines = [f"Destination key can write: {WRITE_RIGHT.get(right, right)}"]
    lines += wrapped(f"Objects: {_objects(validation['objects'])}", first="")
    rows = ", ".join(f"{number(count)} of {kind}" for kind, count in validation["rows"].items())
    lines += wrapped(f"Rows: {rows or 'not counted'}", first="")
    lines += wrapped(f"Estimate: {estimate_text(validation['estimate'])}", first="")
    states = validation.get("dataset_states") or {}
    if states.get("named"):
        lines += wrapped(f"States of datasets: {states_text(states)}", first="")
    for name, reason in validation["unavailable"].items():
        lines += wrapped(f"Cannot list: {name} ({escaped(reason)})", first="")
    cannot_move = validation["cannot_move"]
    if cannot_move:
        lines.append(f"Will not move ({plural(len(cannot_move), 'item')}):")
        lines += [line for text in cannot_move[:items] for line in wrapped(escaped(text))]
        hidden = len(cannot_move[items:]) if items else 0
        lines += [f"  … and {hidden:,} more, see the report"] if hidden else []
    return [*lines, *wrapped(f"Cannot see: {'; '.join(UNSEEN)}", first="")]


def _objects(counts: Mapping[str, Dict[str, int]]) -> str:
    sums = {resource: sum(projects.values()) for resource, projects in counts.items()}
    named = (count_and_noun(count, resource) for resource, count in sums.items() if count)
    return ", ".join(named) or "none"
