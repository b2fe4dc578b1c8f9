"""The aggregates count, count_distinct, min, max, sum, avg and any_value, fed row by row."""

from __future__ import annotations

import operator
from typing import Any, Callable, Dict, Optional, Set

from bt_migrate.sandbox.btql.expressions import (
    AGGREGATES,
    Compiled,
    View,
    compared,
    compile_expression,
    created_micros,
    function_name,
    is_field,
    reads_row,
)
from bt_migrate.sandbox.btql.parse import syntax_error
from bt_migrate.sandbox.data.rows import Json, encode


class Count:
    """The number of rows, or of rows whose value is not null."""

    def __init__(self, value: Optional[Compiled]) -> None:
        self.value = value
        self.result: Any = 0

    def add(self, view: View) -> None:
        if self.value is None or self.value(view) is not None:
            self.result += 1


class CountDistinct:
    def __init__(self, value: Compiled) -> None:
        self.value = value
        self.seen: Set[str] = set()

    def add(self, view: View) -> None:
        value = self.value(view)
        if value is not None:
            self.seen.add(encode(value))

    @property
    def result(self) -> Any:
        return len(self.seen)


class First:
    def __init__(self, value: Compiled) -> None:
        self.value = value
        self.result: Any = None

    def add(self, view: View) -> None:
        if self.result is None:
            self.result = self.value(view)


class Extreme:
    """The minimum or maximum. `rank` may return a key that is cheaper to compare than the value."""

    def __init__(self, value: Compiled, wins: Callable[[Any, Any], bool], rank: Compiled) -> None:
        self.value, self.wins, self.rank = value, wins, rank
        self.best: Any = None
        self.view: Optional[View] = None

    def add(self, view: View) -> None:
        rank = self.rank(view)
        if rank is not None and (self.best is None or compared(self.wins, rank, self.best)):
            self.best, self.view = rank, view

    @property
    def result(self) -> Any:
        return None if self.view is None else self.value(self.view)


class Sum:
    """The sum of the numbers, or their mean; null if there are none."""

    def __init__(self, value: Compiled, is_mean: bool) -> None:
        self.value, self.is_mean = value, is_mean
        self.total: Any = 0
        self.count = 0

    def add(self, view: View) -> None:
        value = self.value(view)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self.total += value
            self.count += 1

    @property
    def result(self) -> Any:
        if not self.count:
            return None
        return self.total / self.count if self.is_mean else self.total


def has_aggregate(expression: Any) -> bool:
    return function_name(expression) in AGGREGATES


def counts_rows(expression: Any) -> bool:
    """count(1) and count(*) count rows, whatever is in them."""
    arguments = expression.get("args") or [{"op": "star"}]
    is_any = arguments[0].get("op") == "star" or not reads_row(arguments[0])
    return function_name(expression) == "count" and is_any


def aggregate(expression: Json) -> Callable[[], Any]:
    """Returns a function that creates an accumulator (with add and result) for a group of rows."""
    name, arguments = function_name(expression), expression.get("args") or []
    if len(arguments) > 1 or (not arguments and name != "count"):
        raise syntax_error(f"{name}() takes one argument")
    if counts_rows(expression):
        return lambda: Count(None)
    value = compile_expression(arguments[0])
    rank = created_micros if is_field(arguments[0], "created") else value
    makers: Dict[str, Callable[[], Any]] = {
        "count": lambda: Count(value),
        "count_distinct": lambda: CountDistinct(value),
        "min": lambda: Extreme(value, operator.lt, rank),
        "max": lambda: Extreme(value, operator.gt, rank),
        "sum": lambda: Sum(value, False),
        "avg": lambda: Sum(value, True),
        "any_value": lambda: First(value),
    }
    return makers[name]
