"""The rows that a query reads: the bounds in its filter, and the rows inside them."""

from __future__ import annotations

import heapq
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from bt_migrate.sandbox.btql.expressions import (
    View,
    compile_expression,
    is_field,
    is_literal,
    operands,
)
from bt_migrate.sandbox.data.rows import Json, Row, RowSet, between
from bt_migrate.sandbox.data.store import Store

# Rows are read in growing slices: a short page is cheap, and the lock is never held for long.
FIRST_SLICE = 256
LAST_SLICE = 4096


# Fields that only shape `traces` shows where the behaviour says so.
HIDDEN_IN_SPANS = ("facets", "classifications")


class Bounds(NamedTuple):
    """The bounds of keys and ids in a filter: low < key < high, and the ids to select."""

    low: Optional[int] = None
    high: Optional[int] = None
    ids: Optional[Set[str]] = None


class Reader:
    """Reads the rows of the sources of one query, in small slices."""

    def __init__(
        self,
        store: Store,
        sources: List[RowSet],
        moment: Optional[int],
        written_before: Optional[float],
    ) -> None:
        self.store = store
        self.sources = sources
        self.moment = moment
        self.written_before = written_before

    def scan(self, rows: RowSet, bounds: Bounds, descending: bool) -> Iterator[Row]:
        """The rows of one object inside of the bounds, in order of their key."""
        with self.store.lock:
            moment = self.moment
            if self.written_before is not None and moment is None:
                moment = rows.visible_moment(self.written_before)
            visible, numbers = rows.at(moment)
            if bounds.ids is not None:
                by_id = rows.by_id if moment is None else {row.id: row for row in visible}
                chosen = [by_id[row_id] for row_id in bounds.ids if row_id in by_id]
                visible = sorted(chosen, key=lambda row: row.key)
                numbers = [row.key for row in visible]
        size = FIRST_SLICE
        while True:
            with self.store.lock:
                start, stop = between(visible, numbers, bounds.low, bounds.high)
                part = (
                    visible[max(start, stop - size) : stop][::-1]
                    if descending
                    else visible[start : min(stop, start + size)]
                )
            if not part:
                return
            yield from part
            edge = part[-1].key
            bounds = bounds._replace(high=edge) if descending else bounds._replace(low=edge)
            size = min(size * 4, LAST_SLICE)

    def ordered(
        self, bounds: Bounds, descending: bool, after: Optional[Tuple[int, int]] = None
    ) -> Iterator[Tuple[int, int, Row]]:
        """(signed key, number of the source, row) of all sources, after a place in that order."""
        streams = [
            self._stream(number, bounds, descending, after) for number in range(len(self.sources))
        ]
        return (
            iter(heapq.merge(*streams, key=lambda item: item[:2]))
            if len(streams) > 1
            else streams[0]
        )

    def _stream(
        self, number: int, bounds: Bounds, descending: bool, after: Optional[Tuple[int, int]]
    ) -> Iterator[Tuple[int, int, Row]]:
        sign = -1 if descending else 1
        for row in self.scan(
            self.sources[number], _moved(bounds, descending, after, number), descending
        ):
            yield sign * row.key, number, row

    def counts(self, bounds: Bounds) -> Optional[List[int]]:
        """Rows of each source inside the bounds; None where that takes reading them."""
        if self.moment is not None or self.written_before is not None or bounds.ids is not None:
            return None
        with self.store.lock:
            edges = [
                between(rows.rows, rows.keys, bounds.low, bounds.high) for rows in self.sources
            ]
        return [stop - start for start, stop in edges]

    def view(self, row: Row, query: Json) -> View:
        """Returns the row in the shape of the query."""
        hides = not self.store.behaviour.spans_show_facets
        if not hides or query["from"].get("shape") == "traces" or not _may_hold_hidden(row):
            return View(row)
        return View(None, {**row.value(), **dict.fromkeys(HIDDEN_IN_SPANS)})

    def matching(self, query: Json) -> Iterator[View]:
        """Views of all rows that the filter keeps, newest first, in the shape of the query."""
        bounds, rest = split_filter(query.get("filter"))
        if not any(all(can_match(item, rows) for item in rest) for rows in self.sources):
            return iter(())
        views = (self.view(row, query) for _, _, row in self.ordered(bounds, True))
        return self.shaped(query, kept(views, rest))

    def shaped(self, query: Json, views: Iterator[View]) -> Iterator[View]:
        shape = query["from"].get("shape")
        if shape == "summary":
            return (view for view in views if view.field("is_root"))
        if shape == "traces":
            roots = {view.field("root_span_id") for view in views}
            everything = (View(row) for _, _, row in self.ordered(Bounds(), True))
            return (view for view in everything if view.field("root_span_id") in roots)
        return views


def _may_hold_hidden(row: Row) -> bool:
    return any(b'"%s":' % name.encode() in row.body for name in HIDDEN_IN_SPANS)


def _moved(
    bounds: Bounds, descending: bool, after: Optional[Tuple[int, int]], number: int
) -> Bounds:
    """Returns the bounds of one source for reading after (key, number of the source)."""
    if after is None:
        return bounds
    key, source = after
    # Keys are unique inside an object only: a later source may still hold a row with the same key.
    if descending:
        edge = key + 1 if number > source else key
        return bounds._replace(high=edge if bounds.high is None else min(edge, bounds.high))
    edge = key - 1 if number > source else key
    return bounds._replace(low=edge if bounds.low is None else max(edge, bounds.low))


# -- filters


def split_filter(expression: Any) -> Tuple[Bounds, List[Any]]:
    """The bounds of keys and ids in the filter, and the conditions to test on each row."""
    bounds = Bounds()
    rest = []
    for condition in _conditions(expression):
        narrowed = _narrowed(bounds, condition)
        if narrowed is None:
            rest.append(condition)
        else:
            bounds = narrowed
    return bounds, rest


def _conditions(expression: Any) -> List[Any]:
    if expression is None:
        return []
    if isinstance(expression, dict) and expression.get("op") == "and":
        return [condition for part in operands(expression) for condition in _conditions(part)]
    return [expression]


def _narrowed(bounds: Bounds, condition: Any) -> Optional[Bounds]:
    """The bounds with one more condition; None if it is not about keys or ids."""
    if not isinstance(condition, dict) or not is_literal(condition.get("right")):
        return None
    op, value = condition.get("op"), condition["right"].get("value")
    if is_field(condition.get("left"), "id") and op in ("eq", "in"):
        ids = {
            item
            for item in (value if op == "in" and isinstance(value, list) else [value])
            if isinstance(item, str)
        }
        return bounds._replace(ids=ids if bounds.ids is None else bounds.ids & ids)
    if not is_field(condition.get("left"), "_pagination_key"):
        return None
    if not isinstance(value, str) or len(value) != 21 or value[0] != "p" or not value[1:].isdigit():
        return None
    key = int(value[1:])
    low = {"gt": key, "ge": key - 1, "eq": key - 1}.get(str(op))
    high = {"lt": key, "le": key + 1, "eq": key + 1}.get(str(op))
    if low is None and high is None:
        return None
    lows = [number for number in (low, bounds.low) if number is not None]
    highs = [number for number in (high, bounds.high) if number is not None]
    return Bounds(max(lows, default=None), min(highs, default=None), bounds.ids)


def can_match(condition: Any, rows: RowSet) -> bool:
    """Whether rows may meet the condition: not if it asks for a field that none has ever had."""
    op = condition.get("op") if isinstance(condition, dict) else ""
    if op in ("and", "or"):
        together = all if op == "and" else any
        return together(can_match(part, rows) for part in operands(condition))
    if op != "isnotnull":
        return True
    unfilled = set(rows.nullable) - rows.filled
    return not any(is_field(condition.get("expr"), name) for name in unfilled)


def kept(views: Iterable[View], conditions: Any) -> Iterator[View]:
    tests = [
        compile_expression(item)
        for item in (conditions if isinstance(conditions, list) else _conditions(conditions))
    ]
    return (view for view in views if all(test(view) for test in tests))
