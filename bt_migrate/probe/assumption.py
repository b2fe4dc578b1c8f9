"""An assumption about a server, and the result of checking it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Tuple

from bt_migrate.probe.scratch import Scratch

# as the hosted service was recorded to behave
HOLDS = "holds"
# another behaviour, which a migration handles
DIFFERS = "differs"
BROKEN = "broken"
NOT_TRIED = "not tried"


@dataclass(frozen=True)
class Seen:
    """The observed behaviour. `text` holds no secret, id or name of the organization."""

    state: str
    text: str


@dataclass(frozen=True)
class Assumption:
    """One behaviour of a server that the code relies on."""

    name: str
    # True: data is lost or damaged if it does not hold
    safety: bool
    claim: str
    # modules that rely on it
    used_in: Tuple[str, ...]
    tried: str
    # what it means for a migration if it does not hold
    meaning: str
    check: Callable[[Scratch], Seen]
    # True: can be checked without writing
    reads_only: bool = False


def holds(text: str) -> Seen:
    return Seen(HOLDS, text)


def differs(text: str) -> Seen:
    return Seen(DIFFERS, text)


def broken(text: str) -> Seen:
    return Seen(BROKEN, text)


def holds_if(condition: bool, text: str) -> Seen:
    """Returns HOLDS if the condition is true, else BROKEN."""
    return Seen(HOLDS if condition else BROKEN, text)
