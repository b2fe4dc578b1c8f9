"""Checks every assumption, and reports what was assumed, what was seen, and what it means."""

from __future__ import annotations

import platform
import textwrap
from typing import Any, Dict, List, Sequence, Tuple

from bt_migrate import __version__
from bt_migrate.api.client import Api
from bt_migrate.errors import (
    EXIT_INCOMPLETE,
    EXIT_OK,
    ApiError,
    Interrupted,
    NetworkError,
)
from bt_migrate.probe.assumption import BROKEN, DIFFERS, HOLDS, NOT_TRIED, Assumption, Seen
from bt_migrate.probe.assumptions import ASSUMPTIONS
from bt_migrate.probe.scratch import PATIENCE_S, Scratch, scratch_project, status_text
from bt_migrate.report.display import COLUMNS

ProbeResult = Tuple[Assumption, Seen]
HANDLED = "nothing: a migration handles both behaviours"
NEEDS_SCRATCH = "needs a scratch project, which --read-only does not create"
MARKS = {HOLDS: "ok", DIFFERS: "differs", BROKEN: "BROKEN", NOT_TRIED: "not tried"}


def probe_reading(api: Api) -> List[ProbeResult]:
    """Check the assumptions that can be checked without writing."""
    scratch = Scratch(api, "", "", PATIENCE_S)
    return [_tried(assumption, scratch, tries=assumption.reads_only) for assumption in ASSUMPTIONS]


def probe(api: Api, cleaner: Api, patience_s: float = PATIENCE_S) -> List[ProbeResult]:
    """Check each assumption in a scratch project; see `scratch_project` for `cleaner`."""
    with scratch_project(api, cleaner, patience_s) as scratch:
        return [_tried(assumption, scratch, tries=True) for assumption in ASSUMPTIONS]


def _tried(assumption: Assumption, scratch: Scratch, *, tries: bool) -> ProbeResult:
    """Check one assumption. A wrong answer of the server fails this assumption only."""
    if not tries:
        return assumption, Seen(NOT_TRIED, NEEDS_SCRATCH)
    scratch.api.check()
    try:
        return assumption, assumption.check(scratch)
    except Interrupted:
        raise
    except ApiError as error:
        return assumption, Seen(BROKEN, f"{error.method} was {status_text(error)}")
    except NetworkError:
        return assumption, Seen(BROKEN, "the answer could not be understood, or there was none")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        # The answer has another shape than the check expects.
        return assumption, Seen(BROKEN, "the answer has an unexpected shape")


def exit_code(results: Sequence[ProbeResult]) -> int:
    broken = [
        assumption for assumption, seen in results if assumption.safety and seen.state == BROKEN
    ]
    return EXIT_INCOMPLETE if broken else EXIT_OK


def report_lines(results: Sequence[ProbeResult]) -> List[str]:
    """Returns each assumption, and what was seen and what it means if it does not hold.

    Those that --read-only leaves out are named together.
    """
    lines = []
    left_out = [assumption.name for assumption, seen in results if seen.text == NEEDS_SCRATCH]
    for assumption, seen in results:
        if seen.text == NEEDS_SCRATCH:
            continue
        lines += _wrapped(f"{MARKS[seen.state]:<9} {assumption.name}: {assumption.claim}")
        if seen.state != HOLDS:
            lines += _wrapped(f"{'':<9} seen: {seen.text}")
        if seen.state in (DIFFERS, BROKEN):
            lines += _wrapped(f"{'':<9} meaning: {_meaning(assumption, seen)}")
    if left_out:
        reason = f"{MARKS[NOT_TRIED]} what {NEEDS_SCRATCH}"
        lines += ["", *_wrapped(f"{reason}: {', '.join(left_out)}")]
    return [*lines, "", *textwrap.wrap(summary_of_probe(results), COLUMNS)]


def _wrapped(line: str) -> List[str]:
    return textwrap.wrap(line, COLUMNS, subsequent_indent=" " * 12, break_on_hyphens=False)


def _meaning(assumption: Assumption, seen: Seen) -> str:
    """What it means for a migration; another known behaviour does no harm."""
    return HANDLED if assumption.safety and seen.state == DIFFERS else assumption.meaning


def summary_of_probe(results: Sequence[ProbeResult]) -> str:
    states = [seen.state for _, seen in results]
    parts = [
        f"{states.count(state)} {word}"
        for state, word in (
            (HOLDS, "hold"),
            (DIFFERS, "differ without harm"),
            (BROKEN, "broken"),
            (NOT_TRIED, "not tried"),
        )
        if state in states
    ]
    unsafe = [
        assumption.name
        for assumption, seen in results
        if assumption.safety and seen.state == BROKEN
    ]
    verdict = "the server behaves as a migration expects"
    if unsafe:
        verdict = f"do not migrate before these are understood: {', '.join(unsafe)}"
    elif any(seen.text == NEEDS_SCRATCH for _, seen in results):
        verdict = "nothing yet speaks against a migration; without --read-only, the rest is tried"
    elif BROKEN in states:
        verdict = "no data is at risk; see what is broken"
    return f"{len(results)} assumptions: {', '.join(parts)}; {verdict}"


def record(results: Sequence[ProbeResult]) -> Dict[str, Any]:
    """Returns the results for a bug report, without keys, ids, names and addresses."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "exit_code": exit_code(results),
        "assumptions": [
            {
                "name": assumption.name,
                "safety": assumption.safety,
                "assumed": assumption.claim,
                "state": seen.state,
                "seen": seen.text,
                "meaning": _meaning(assumption, seen) if seen.state in (DIFFERS, BROKEN) else "",
            }
            for assumption, seen in results
        ],
    }
