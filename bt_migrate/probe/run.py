"""Tries every belief, and says what was believed, what was seen, and what it means."""

from __future__ import annotations

import platform
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
from bt_migrate.probe.belief import BROKEN, DIFFERS, HOLDS, NOT_TRIED, Belief, Seen
from bt_migrate.probe.beliefs import BELIEFS
from bt_migrate.probe.scratch import PATIENCE_S, Scratch, scratch_project, status_of

Result = Tuple[Belief, Seen]
MARKS = {HOLDS: "ok", DIFFERS: "differs", BROKEN: "BROKEN", NOT_TRIED: "not tried"}


def probe_reading(api: Api, patience_s: float = PATIENCE_S) -> List[Result]:
    """Try the beliefs that reading alone shows."""
    scratch = Scratch(api, "", "", patience_s)
    return [_tried(belief, scratch, tries=belief.reads_only) for belief in BELIEFS]


def probe(api: Api, cleaner: Api, patience_s: float = PATIENCE_S) -> List[Result]:
    """Try each belief in a scratch project, which `cleaner` deletes; see `scratch_project`."""
    with scratch_project(api, cleaner, patience_s) as scratch:
        return [_tried(belief, scratch, tries=True) for belief in BELIEFS]


def _tried(belief: Belief, scratch: Scratch, *, tries: bool) -> Result:
    """One belief. What a server answers wrong is that belief's failure; the others go on."""
    if not tries:
        return belief, Seen(NOT_TRIED, "needs a key that may write")
    scratch.api.check()
    try:
        return belief, belief.check(scratch)
    except Interrupted:
        raise
    except ApiError as error:
        return belief, Seen(BROKEN, f"{error.method} was {status_of(error)}")
    except NetworkError:
        return belief, Seen(BROKEN, "the answer could not be understood, or there was none")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        # A server's answer of another shape than any check expects.
        return belief, Seen(BROKEN, "the answer has an unexpected shape")


def exit_code(results: Sequence[Result]) -> int:
    broken = [belief for belief, seen in results if belief.safety and seen.state == BROKEN]
    return EXIT_INCOMPLETE if broken else EXIT_OK


def report_lines(results: Sequence[Result]) -> List[str]:
    """Believed, seen, and the meaning of what is not as believed."""
    lines = []
    for belief, seen in results:
        lines.append(f"{MARKS[seen.state]:<9} {belief.name}: {belief.claim}")
        if seen.state != HOLDS:
            lines.append(f"          seen: {seen.text}")
        if seen.state in (DIFFERS, BROKEN):
            lines.append(f"          meaning: {belief.meaning}")
    return [*lines, "", summary(results)]


def summary(results: Sequence[Result]) -> str:
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
    unsafe = [belief.name for belief, seen in results if belief.safety and seen.state == BROKEN]
    verdict = f"; do not migrate before these are understood: {', '.join(unsafe)}" if unsafe else ""
    return f"{len(results)} beliefs: {', '.join(parts)}{verdict}"


def record(results: Sequence[Result]) -> Dict[str, Any]:
    """What a bug report may hold: no key, id, name or address."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "exit_code": exit_code(results),
        "beliefs": [
            {
                "name": belief.name,
                "safety": belief.safety,
                "believed": belief.claim,
                "state": seen.state,
                "seen": seen.text,
                "meaning": belief.meaning if seen.state in (DIFFERS, BROKEN) else "",
            }
            for belief, seen in results
        ],
    }
