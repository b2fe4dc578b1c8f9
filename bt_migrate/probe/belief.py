"""What a belief is, and what was seen of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Tuple

from bt_migrate.probe.scratch import Scratch

# as the hosted service was recorded to behave
HOLDS = "holds"
# otherwise, in a way that a migration handles
DIFFERS = "differs"
BROKEN = "broken"
NOT_TRIED = "not tried"


@dataclass(frozen=True)
class Seen:
    """How a server behaved. `text` holds no secret, id or name of the organization."""

    state: str
    text: str


@dataclass(frozen=True)
class Belief:
    """One thing that the code believes of a server."""

    name: str
    # data is lost or damaged where it does not hold
    safety: bool
    claim: str
    # modules that rely on it
    used_in: Tuple[str, ...]
    tried: str
    # what it means for a migration where it does not hold
    meaning: str
    check: Callable[[Scratch], Seen]
    # tried with reading alone
    reads_only: bool = False


def holds(text: str) -> Seen:
    return Seen(HOLDS, text)


def differs(text: str) -> Seen:
    return Seen(DIFFERS, text)


def broken(text: str) -> Seen:
    return Seen(BROKEN, text)


def holds_if(condition: bool, text: str) -> Seen:
    """Holds where the condition is true, else it is broken."""
    return Seen(HOLDS if condition else BROKEN, text)
