"""Source ids and transactions that the destination's objects still contain.

The table of resources says which fields hold references and versions. Other fields are copied
unchanged: then both sides are equal, and the copy still refers to the source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, Mapping, Set, Tuple

from bt_migrate.api.transactions import XACT_PREFIX
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import DIFFERS
from bt_migrate.model.references import NAMES, dotted, strings
from bt_migrate.verify.result import MATCH, Comparison, first_paths

# A string that is an id, with or without the prefix that OpenTelemetry puts before it.
_ID = re.compile(r"(?:[a-z_]+:)?([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})\Z")
_XACT = re.compile(r"\d{19}\Z")
_PRETTY_XACT = re.compile(r"[0-9a-f]{16}\Z")
# for the official SDK's short form of a transaction
_PRETTY_FACTOR_INVERSE = 1522336535492693385
_WORD = (1 << 64) - 1
_TOP_BITS = 0xFFFF << 48


@dataclass(frozen=True)
class HeldIds:
    """The ids in a destination object that equals the source's: path -> id."""

    result: Comparison
    facts: Mapping[str, Any]
    ids: Dict[str, str]


@dataclass
class SourceTraces:
    """Collects the ids of both sides while objects are compared. `settle` judges them."""

    source_ids: Set[str] = field(default_factory=set)
    dest_ids: Set[str] = field(default_factory=set)
    unsettled: List[HeldIds] = field(default_factory=list)

    def note_ids(self, source: Iterable[JsonObject]) -> None:
        self.source_ids.update(obj["id"] for obj in source)

    def note_dest_ids(self, ids: Iterable[str]) -> None:
        """Record ids of the destination: an id that both sides have, as of a user, is no trace."""
        self.dest_ids.update(ids)

    @property
    def only_source(self) -> FrozenSet[str]:
        return frozenset(self.source_ids - self.dest_ids)

    def hold(
        self, result: Comparison, facts: Mapping[str, Any], existing: Mapping[str, Any]
    ) -> None:
        """Keep the ids of a matching object until all source objects are known."""
        ids = dict(_ids_in(existing))
        if ids:
            self.unsettled.append(HeldIds(result, facts, ids))

    def settle(self) -> None:
        """Turn each match that contains an id that only the source has into a difference."""
        only_source = self.only_source
        for held_ids in self.unsettled:
            paths = [path for path, id_here in held_ids.ids.items() if id_here in only_source]
            if paths:
                held_ids.result.counts[MATCH] -= 1
                detail = "holds an id of the source"
                held_ids.result.add(
                    DIFFERS, **held_ids.facts, fields=first_paths(iter(paths)), detail=detail
                )
        self.unsettled.clear()


def id_in(text: str) -> str:
    """Returns the id if the whole text is one, else ""."""
    match = _ID.match(text)
    return match[1] if match else ""


def _ids_in(value: Mapping[str, Any]) -> Iterator[Tuple[str, str]]:
    for path, text in strings(value):
        id_here = id_in(text)
        if id_here and not (len(path) == 1 and path[0] in NAMES):
            yield dotted(path), id_here


def kept_transactions(
    source: Mapping[str, Any], existing: Mapping[str, Any]
) -> Iterator[Tuple[str, str]]:
    """Yields (path, transaction) where the destination's object has a transaction of the source."""
    ours = {text for _, text in strings(source) if is_transaction(text)}
    if ours:
        for path, text in strings(existing):
            if text in ours:
                yield dotted(path), text


def is_transaction(text: str) -> bool:
    """Whether a text is a transaction id, as a number or in the SDK's short form."""
    if _XACT.match(text):
        return int(text) & _TOP_BITS == XACT_PREFIX
    if _PRETTY_XACT.match(text):
        return (int(text, 16) * _PRETTY_FACTOR_INVERSE) & _WORD & _TOP_BITS == XACT_PREFIX
    return False
