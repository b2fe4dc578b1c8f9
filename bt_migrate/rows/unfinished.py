"""Recognizes a row that an earlier run left unfinished. Pure.

An earlier run leaves out a reference whose object does not exist yet, and keeps the source's key of
an attachment that it could not copy. The destination's row is compared place by place, in one pass,
so that the time does not grow with the number of ways in which the row can have been written.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from bt_migrate.model.equality import row_digest
from bt_migrate.model.references import Path, attachment_places, set_at, value_at
from bt_migrate.rows.rewrite import copied


class Either(NamedTuple):
    """A place that may hold one of two values. `before` is None if the value was left out."""

    now: Any
    before: Optional[str]

    @property
    def can_be_absent(self) -> bool:
        return self.before is None

    def allows(self, value: Any) -> bool:
        return _is_allowed(self.now, value) or _is_equal(self.before, value)


# A place of the row: what this run would write, and what the destination has.
Pair = Tuple[Any, Any]


def is_left_unfinished(
    row: Mapping[str, Any],
    there: Mapping[str, Any],
    late: Mapping[Path, Optional[str]],
    source_keys: Mapping[str, str],
) -> bool:
    """Whether `there` equals the rewritten row except for what an earlier run left unfinished.

    `late`: place of a reference in the row -> the text that an earlier run kept there, None if it
    left the reference out; a place inside another one comes first. `source_keys`: key of an
    attachment -> its key in the source.
    """
    expected: Dict[str, Any] = copied(row)
    for path in attachment_places(expected):
        key = value_at(expected, path)["key"]
        if key in source_keys:
            set_at(expected, (*path, "key"), Either(key, source_keys[key]))
    for path, before in late.items():
        now = value_at(expected, path)
        # A field that became an attachment no longer holds its references.
        if now is not None:
            set_at(expected, path, Either(now, before))
    return _is_allowed(_without_nulls(expected), _without_nulls(there))


def _without_nulls(row: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the row without null fields: a row is read with null for each field it lacks."""
    return {name: value for name, value in row.items() if value is not None}


def _is_allowed(expected: Any, there: Any) -> bool:
    """Whether the values are equal or allowed to differ.

    Without recursion: a row may be nested as deep as the JSON reader accepts.
    """
    waiting: List[Pair] = [(expected, there)]
    while waiting:
        wanted, actual = waiting.pop()
        if isinstance(wanted, Either):
            equal = wanted.allows(actual)
        elif isinstance(wanted, dict) and isinstance(actual, dict):
            equal = _have_same_keys(wanted, actual)
            waiting.extend((value, actual[key]) for key, value in wanted.items() if key in actual)
        elif isinstance(wanted, list) and isinstance(actual, list):
            pairs = _item_pairs(wanted, actual)
            equal = pairs is not None
            waiting.extend(pairs or ())
        else:
            equal = _is_equal(wanted, actual)
        if not equal:
            return False
    return True


def _have_same_keys(wanted: Mapping[str, Any], actual: Mapping[str, Any]) -> bool:
    missing = wanted.keys() - actual.keys()
    return wanted.keys() >= actual.keys() and not any(
        _must_be_there(wanted[key]) for key in missing
    )


def _must_be_there(wanted: Any) -> bool:
    return not (isinstance(wanted, Either) and wanted.can_be_absent)


def _item_pairs(wanted: List[Any], actual: List[Any]) -> Optional[List[Pair]]:
    """Returns the items of two lists in pairs; None if an item is missing or extra.

    An item that was left out shifts the items after it.
    """
    pairs: List[Pair] = []
    for item in wanted:
        extra = actual[len(pairs) : len(pairs) + 1]
        required = _must_be_there(item)
        if extra and (required or item.allows(extra[0])):
            pairs.append((item, extra[0]))
        elif required:
            return None
    return pairs if len(pairs) == len(actual) else None


def _is_equal(left: Any, right: Any) -> bool:
    """Whether two values are the same JSON, apart from the format of timestamps."""
    if isinstance(left, (str, bool, int)) and type(left) is type(right) and left == right:
        return True
    return row_digest({"value": left}) == row_digest({"value": right})
