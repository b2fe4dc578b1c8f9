"""Compiles BTQL expressions in JSON form to functions of a row."""

from __future__ import annotations

import operator
import re
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import bt_migrate.sandbox.data.clock as keys
from bt_migrate.sandbox.btql.parse import syntax_error
from bt_migrate.sandbox.data.rows import Json, Row, encode

SECONDS = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86400,
    "week": 604800,
    "month": 2592000,
    "year": 31536000,
}
# Unit -> (length of the timestamp that is kept, text that completes it).
TRUNCATIONS = {
    "second": (19, "Z"),
    "minute": (16, ":00Z"),
    "hour": (13, ":00:00Z"),
    "day": (10, "T00:00:00Z"),
    "month": (7, "-01T00:00:00Z"),
    "year": (4, "-01-01T00:00:00Z"),
}
AGGREGATES = frozenset("count count_distinct min max sum avg any_value".split())


class Interval(NamedTuple):
    micros: int


class View:
    """One row as expressions see it; its JSON text is decoded only when it is needed."""

    __slots__ = ("row", "_value")

    def __init__(self, row: Optional[Row], value: Optional[Json] = None) -> None:
        self.row = row
        self._value = value

    def value(self) -> Json:
        if self._value is None and self.row is not None:
            self._value = self.row.value()
        return self._value or {}

    def field(self, name: str) -> Any:
        if self.row is not None:
            if name == "id":
                return self.row.id
            if name == "_xact_id":
                return keys.xact_id(self.row.moment)
            if name == "_pagination_key":
                return keys.pagination_key(self.row.key)
        value = self.value()
        if name == "name" and name not in value:
            # of a span
            return (value.get("span_attributes") or {}).get(name)
        return value.get(name)


Compiled = Callable[[View], Any]


def compile_expression(expression: Any) -> Compiled:
    op = expression.get("op") if isinstance(expression, dict) else None
    if op not in COMPILERS:
        raise syntax_error(f"unknown expression {str(expression)[:100]}")
    compiled = COMPILERS[op](expression)
    if op != "literal" and not reads_row(expression):
        constant = compiled(View(None, {}))
        return lambda view: constant
    return compiled


def with_now(expression: Any, now: Json) -> Any:
    """The expression (or query) with the literal `now` for NOW() and CURRENT_TIMESTAMP()."""
    if isinstance(expression, list):
        return [with_now(part, now) for part in expression]
    if not isinstance(expression, dict) or is_literal(expression):
        return expression
    if function_name(expression) in ("now", "current_timestamp") and not expression.get("args"):
        return now
    return {name: with_now(part, now) for name, part in expression.items()}


def reads_row(expression: Any) -> bool:
    if isinstance(expression, list):
        return any(reads_row(part) for part in expression)
    if not isinstance(expression, dict) or expression.get("op") == "literal":
        return False
    if expression.get("op") in ("ident", "star"):
        return True
    # The name of a function is an ident too, but not a field.
    return any(reads_row(part) for name, part in expression.items() if name != "name")


def is_literal(expression: Any) -> bool:
    return isinstance(expression, dict) and expression.get("op") == "literal"


def is_field(expression: Any, name: str) -> bool:
    return (
        isinstance(expression, dict)
        and expression.get("op") == "ident"
        and expression.get("name") == [name]
    )


def function_name(expression: Any) -> str:
    """The lower-case name of a function call, '' for any other expression."""
    if not isinstance(expression, dict) or expression.get("op") != "function":
        return ""
    name = expression.get("name")
    path = name.get("name") if isinstance(name, dict) else [name]
    return str((path or [""])[-1]).lower()


# -- values


def _ident(expression: Json) -> Compiled:
    path = expression.get("name")
    if not isinstance(path, list) or not path:
        raise syntax_error("ident without a name")
    first, rest = str(path[0]), path[1:]
    if not rest:
        return lambda view: view.field(first)

    def follow(view: View) -> Any:
        value = view.field(first)
        for name in rest:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    return follow


def _literal(expression: Json) -> Compiled:
    value = expression.get("value")
    return lambda view: value


def _interval(expression: Json) -> Compiled:
    unit, value = expression.get("unit"), expression.get("value")
    if unit not in SECONDS or not isinstance(value, int):
        raise syntax_error("unknown interval")
    interval = Interval(value * SECONDS[unit] * 1_000_000)
    return lambda view: interval


def _function(expression: Json) -> Compiled:
    name = function_name(expression)
    arguments = [compile_expression(argument) for argument in expression.get("args") or []]
    if name in TRUNCATIONS and len(arguments) == 1:
        if is_field(expression["args"][0], "created"):
            return lambda view: cut_timestamp(created_micros(view), name)
        return lambda view: truncated(arguments[0](view), name)
    if name == "date_trunc" and len(arguments) == 2:
        return lambda view: truncated(arguments[1](view), str(arguments[0](view)))
    if name == "lower" and len(arguments) == 1:
        return lambda view: str(arguments[0](view)).lower()
    if name == "coalesce":
        return lambda view: next((v for v in (a(view) for a in arguments) if v is not None), None)
    if name in AGGREGATES:
        raise syntax_error(f"{name}() is not allowed here")
    raise syntax_error(f"unknown function {name}()")


def timestamp_text(micros: int) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(micros // 1_000_000))
    return f"{whole}.{micros % 1_000_000:06}Z"


def truncated(value: Any, unit: str) -> Optional[str]:
    return cut_timestamp(keys.micros(value) if isinstance(value, str) else None, unit)


def cut_timestamp(micros: Optional[int], unit: str) -> Optional[str]:
    if unit not in TRUNCATIONS:
        raise syntax_error(f"unknown unit {unit!r}")
    length, rest = TRUNCATIONS[unit]
    return None if micros is None else timestamp_text(micros)[:length] + rest


def created_micros(view: View) -> Optional[int]:
    """When the row was created, without decoding it."""
    if view.row is not None:
        return view.row.created
    value = view.field("created")
    return keys.micros(value) if isinstance(value, str) else None


# -- logic: null is neither true nor false, and a filter keeps what is true


def _and(expression: Json) -> Compiled:
    parts = [compile_expression(part) for part in operands(expression)]
    return lambda view: _joined(parts, view, False)


def _or(expression: Json) -> Compiled:
    parts = [compile_expression(part) for part in operands(expression)]
    return lambda view: _joined(parts, view, True)


def _joined(parts: List[Compiled], view: View, decisive: bool) -> Optional[bool]:
    """AND is false if one part is false, OR is true if one is true; else null if a part is null."""
    unknown = False
    for part in parts:
        value = part(view)
        if value is None:
            unknown = True
        elif bool(value) is decisive:
            return decisive
    return None if unknown else not decisive


def operands(expression: Json) -> List[Any]:
    """Returns the operands of both variants of the JSON form: left and right, or children."""
    children = expression.get("children")
    return (
        children
        if isinstance(children, list)
        else [expression.get("left"), expression.get("right")]
    )


def _not(expression: Json) -> Compiled:
    inner = compile_expression(expression.get("expr"))

    def negate(view: View) -> Optional[bool]:
        value = inner(view)
        return None if value is None else not value

    return negate


def _null_test(wanted: bool) -> Callable[[Json], Compiled]:
    def compile_test(expression: Json) -> Compiled:
        inner = compile_expression(expression.get("expr"))
        return lambda view: (inner(view) is None) is wanted

    return compile_test


# -- comparisons

COMPARE: Dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def _comparison(op: str) -> Callable[[Json], Compiled]:
    compare = COMPARE[op]

    def compile_comparison(expression: Json) -> Compiled:
        left, right = expression.get("left"), expression.get("right")
        if is_field(left, "created") and not reads_row(right):
            return _created_comparison(compare, compile_expression(right)(View(None, {})))
        first = compile_expression(left)
        second = compile_expression(right)
        return lambda view: compared(compare, first(view), second(view))

    return compile_comparison


def _created_comparison(compare: Callable[[Any, Any], bool], value: Any) -> Compiled:
    """Returns the comparison of `created` with a constant, which need not decode the row."""
    bound = keys.micros(value) if isinstance(value, str) else None
    if bound is None:
        return lambda view: compared(compare, view.value().get("created"), value)

    def compare_created(view: View) -> Any:
        if view.row is not None:
            return compare(view.row.created, bound)
        return compared(compare, view.field("created"), value)

    return compare_created


def compared(compare: Callable[[Any, Any], bool], first: Any, second: Any) -> Optional[bool]:
    """Null if a side is null; timestamps and numbers by value, other texts by code points."""
    if first is None or second is None:
        return None
    first, second = _comparable(first, second)
    try:
        return compare(first, second)
    except TypeError:
        return compare is operator.ne


def _comparable(first: Any, second: Any) -> Any:
    if isinstance(first, str) and isinstance(second, str):
        if first.isdigit() and second.isdigit():
            return int(first), int(second)
        if first[4:5] == "-" and second[4:5] == "-":
            moments = keys.micros(first), keys.micros(second)
            return moments if None not in moments else (first, second)
    if isinstance(first, bool) != isinstance(second, bool):
        return str(first).lower(), str(second).lower()
    return first, second


def _in(expression: Json) -> Compiled:
    left = compile_expression(expression.get("left"))
    right = expression.get("right")
    values = right.get("value") if is_literal(right) and isinstance(right, dict) else None
    if not isinstance(values, list):
        raise syntax_error("IN takes a list of literals")
    wanted = frozenset(encode(value) for value in values)
    return lambda view: encode(left(view)) in wanted


def _like(flags: int) -> Callable[[Json], Compiled]:
    def compile_like(expression: Json) -> Compiled:
        left, right = (
            compile_expression(expression.get("left")),
            compile_expression(expression.get("right")),
        )
        return lambda view: matches_like(left(view), right(view), flags)

    return compile_like


def matches_like(text: Any, pattern: Any, flags: int) -> Optional[bool]:
    if text is None or pattern is None:
        return None
    parts = {"%": ".*", "_": "."}
    source = "".join(parts.get(sign) or re.escape(sign) for sign in str(pattern))
    return (
        re.fullmatch(source, text if isinstance(text, str) else encode(text), flags | re.DOTALL)
        is not None
    )


def _includes(expression: Json) -> Compiled:
    left, right = (
        compile_expression(expression.get("left")),
        compile_expression(expression.get("right")),
    )

    def include(view: View) -> Optional[bool]:
        holder, item = left(view), right(view)
        if (
            holder is None
            or isinstance(holder, str) is not isinstance(item, str)
            and not isinstance(holder, list)
        ):
            return None
        return item in holder

    return include


def _match(expression: Json) -> Compiled:
    left, right = (
        compile_expression(expression.get("left")),
        compile_expression(expression.get("right")),
    )

    def match(view: View) -> bool:
        text, words = left(view), str(right(view)).lower().split()
        source = (text if isinstance(text, str) else encode(text)).lower()
        return all(re.search(rf"\b{re.escape(word)}\b", source) for word in words)

    return match


# -- arithmetic


def _arithmetic(op: str) -> Callable[[Json], Compiled]:
    def compile_arithmetic(expression: Json) -> Compiled:
        left, right = (
            compile_expression(expression.get("left")),
            compile_expression(expression.get("right")),
        )
        return lambda view: computed(op, left(view), right(view))

    return compile_arithmetic


def computed(op: str, first: Any, second: Any) -> Any:
    if isinstance(second, Interval) and isinstance(first, str):
        micros = keys.micros(first)
        sign = {"add": 1, "sub": -1}.get(op)
        return (
            None
            if micros is None or sign is None
            else timestamp_text(micros + sign * second.micros)
        )
    numbers = all(isinstance(value, (int, float)) for value in (first, second))
    if not numbers or (op in ("div", "mod") and not second):
        return None
    functions = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "mod": operator.mod}
    return functions.get(op, operator.truediv)(first, second)


COMPILERS: Dict[str, Callable[[Json], Compiled]] = {
    "ident": _ident,
    "literal": _literal,
    "interval": _interval,
    "function": _function,
    "star": lambda expression: lambda view: view.value(),
    "and": _and,
    "or": _or,
    "not": _not,
    "isnull": _null_test(True),
    "isnotnull": _null_test(False),
    "in": _in,
    "like": _like(0),
    "ilike": _like(re.IGNORECASE),
    "includes": _includes,
    "match": _match,
}
COMPILERS.update((op, _comparison(op)) for op in COMPARE)
COMPILERS.update((op, _arithmetic(op)) for op in ("add", "sub", "mul", "div", "mod"))
