"""Whether a POST created the object in its answer, or returned one that existed.

The header `x-bt-found-existing` says so for projects and datasets. Experiments never carry it, and
POST of an existing function or prompt writes a new version of it. So creation is proven by the date
of the object, or by a look-up right before the POST that did not find it. An object without proof
counts as found.
"""

from __future__ import annotations

import re
import threading
from typing import Any, List, Mapping, Optional

from bt_migrate.model.date_windows import instant
from bt_migrate.model.equality import same
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import CALLABLE
from bt_migrate.state.object_file import Intention

FOUND_EXISTING = "x-bt-found-existing"  # header of a POST that created nothing
CLOCK_SKEW_S = 0.05  # between the machines of one server
INTENT_SLACK_S = 2.0  # a Date header has whole seconds
# assumption: names_are_found
# kinds that are recorded to carry the header -> parameter of their list that names one
MARKED_IF_FOUND = {"projects": "project_name", "datasets": "dataset_name"}
_FRACTION = re.compile(r"\.\d*[1-9]", re.ASCII)
# Fields that people fill in and that no server fills in by itself.
FILLED_IN_BY_PEOPLE = ("description", "metadata", "tags")


class CreationClock:
    """The destination's clock, as the creation dates of objects show it. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # how far the clock is ahead of the local one, at least; None until an object has shown it
        self._ahead_s: Optional[float] = None
        self._last_date_s = 0.0

    def is_running(self, created_s: float) -> bool:
        """Whether the last date was another one: a server may write one date into all objects."""
        with self._lock:
            last_s, self._last_date_s = self._last_date_s, created_s
        return last_s not in (0.0, created_s)

    def note(self, created_s: float, received_s: float) -> None:
        """Use the date of a created object that was received at the local time `received_s`."""
        if not created_s:
            return
        with self._lock:
            ahead_s = created_s - received_s
            self._ahead_s = ahead_s if self._ahead_s is None else max(self._ahead_s, ahead_s)

    def forget(self) -> None:
        """A date did not fit: maybe a clock was set. The next creation is preceded by a look-up."""
        with self._lock:
            self._ahead_s = None

    def least_s(self, sent_s: float) -> Optional[float]:
        """Returns the earliest date of an object created after `sent_s`; None if not known."""
        ahead_s = self._ahead_s
        return None if ahead_s is None else sent_s + ahead_s - CLOCK_SKEW_S


# assumption: slugs_are_versions
def date_is_of_creation(resource: Resource) -> bool:
    """True unless `created` is the date of the last version, as of prompts and functions, or not
    known to be that of the creation.
    """
    return resource.name not in CALLABLE and not resource.below_owner


def created_seconds(obj: Mapping[str, Any]) -> float:
    """Returns the latest unix second of creation that `created` allows; 0 if it is unreadable."""
    text = str(obj.get("created"))
    try:
        seconds = instant(text).timestamp()
    except ValueError:
        return 0.0
    return seconds if _names_a_moment(text) else seconds + 1.0


def exact_seconds(obj: Mapping[str, Any]) -> float:
    """Returns the unix second of creation; 0 if `created` does not name it more exactly than a
    whole second, as of a server that writes no fraction, or always .000.
    """
    return created_seconds(obj) if _names_a_moment(str(obj.get("created"))) else 0.0


def _names_a_moment(date: str) -> bool:
    return _FRACTION.search(date) is not None


def contradicts(resource: Resource, sent: Mapping[str, Any], answered: Mapping[str, Any]) -> bool:
    """Whether an answer contains content that was not sent, in fields that only people fill in.

    Fields that are absent from it prove nothing, nor do others, which servers may set by
    themselves.
    """
    if not date_is_of_creation(resource):
        # The answer shows the new version, with what was sent.
        return False
    for name in FILLED_IN_BY_PEOPLE:
        shown = answered.get(name)
        if name not in resource.create or shown is None:
            continue
        if not (_equal(sent[name], shown) if name in sent else not shown):
            return True
    return False


def _equal(sent: Any, shown: Any) -> bool:
    """Equality that tolerates what servers do to numbers, and defaults that they add to objects."""
    if isinstance(sent, dict) and isinstance(shown, dict):
        return all(
            value is None or (name in shown and _equal(value, shown[name]))
            for name, value in sent.items()
        )
    if isinstance(sent, list) and isinstance(shown, list):
        if len(sent) != len(shown):
            return False
        return all(map(_equal, sent, shown)) or _same_members(sent, shown)
    return bool(sent == shown) or same(sent, shown)


def _same_members(sent: List[Any], shown: List[Any]) -> bool:
    return sorted(map(repr, sent)) == sorted(map(repr, shown))


def is_left_by_killed_process(
    intent: Intention, fingerprint_now: str, obj: Mapping[str, Any]
) -> bool:
    """Whether an object is the one that a process was about to create when it was killed.

    It holds exactly what was about to be sent, and is not older than that.
    """
    created_s = created_seconds(obj)
    is_older = intent.at is not None and created_s and created_s < intent.at - INTENT_SLACK_S
    return fingerprint_now == intent.fingerprint and not is_older
