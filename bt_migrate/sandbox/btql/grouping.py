"""Queries with groups and measures, and the columns of their answers."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from bt_migrate.sandbox.btql.aggregates import aggregate, counts_rows, has_aggregate
from bt_migrate.sandbox.btql.expressions import View, compile_expression
from bt_migrate.sandbox.btql.parse import syntax_error
from bt_migrate.sandbox.data.rows import Json, encode

Group = Tuple[View, List[Any]]  # its first row, and an accumulator for each measure


def is_grouped(query: Json) -> bool:
    items = query.get("select") or []
    return bool(
        query.get("dimensions")
        or query.get("measures")
        or any(has_aggregate(i.get("expr")) for i in items)
    )


def columns_of(query: Json) -> List[Json]:
    """The columns of a grouped query: what SQL selects, or the dimensions and measures."""
    if query.get("sql") or not (query.get("dimensions") or query.get("measures")):
        return list(query.get("select") or [])
    return list(query.get("dimensions") or []) + list(query.get("measures") or [])


def counted_by(query: Json) -> Optional[List[str]]:
    """The fields by which a query counts rows, measuring nothing else; None for any other query."""
    fields = [item.get("expr") or {} for item in query.get("dimensions") or []]
    if query["from"].get("shape") not in (None, "spans") or query.get("final_filter"):
        return None
    measured = [item for item in columns_of(query) if item.get("expr") not in fields]
    if not all(counts_rows(item.get("expr")) for item in measured):
        return None
    if not all(field.get("op") == "ident" and len(field["name"]) == 1 for field in fields):
        return None
    return [field["name"][0] for field in fields]


def counts_of_sources(
    query: Json, fields: List[str], sources: Iterable[Tuple[Mapping[str, str], int]]
) -> Optional[List[Json]]:
    """The answer to a query that counts by fields which are the same in all rows of a source.

    `sources`: those fixed fields of each, and its number of rows. None where a field is not fixed.
    """
    numbers: Dict[Tuple[str, ...], int] = {} if fields else {(): 0}
    for fixed, number in sources:
        if not all(field in fixed for field in fields):
            return None
        key = tuple(fixed[field] for field in fields)
        if number:
            numbers[key] = numbers.get(key, 0) + number
    return [
        {
            item["alias"]: number
            if has_aggregate(item["expr"])
            else key[fields.index(name_of(item))]
            for item in columns_of(query)
        }
        for key, number in numbers.items()
    ]


def name_of(item: Json) -> str:
    name: str = item["expr"]["name"][0]
    return name


def aliased(query: Json, expression: Any) -> Any:
    """In a grouped query, an expression that was selected stands for its column."""
    for item in columns_of(query) if is_grouped(query) else []:
        if item.get("expr") == expression:
            return {"op": "ident", "name": [item["alias"]]}
    return expression


def groups_of(query: Json, views: Iterable[View]) -> List[Json]:
    """Returns the rows of the answer, in the order in which their groups first occurred."""
    columns = columns_of(query)
    dimensions = _dimensions(query, columns)
    for item in columns:
        if item.get("op") == "star" or not (
            has_aggregate(item["expr"]) or item["expr"] in dimensions
        ):
            raise syntax_error("a column is neither grouped by nor aggregated")
    rows = [_row(columns, group) for group in _grouped(columns, dimensions, views)]
    if query.get("final_filter"):
        keep = compile_expression(aliased(query, query["final_filter"]))
        rows = [row for row in rows if keep(View(None, row))]
    return rows


def _dimensions(query: Json, columns: List[Json]) -> List[Any]:
    """What is grouped by; GROUP BY may name a column by its alias."""
    by_alias = {item.get("alias"): item.get("expr") for item in columns}
    expressions = [item.get("expr") or {} for item in query.get("dimensions") or []]
    return [
        by_alias.get(expression["name"][0], expression)
        if expression.get("op") == "ident"
        else expression
        for expression in expressions
    ]


def _grouped(columns: List[Json], dimensions: List[Any], views: Iterable[View]) -> List[Group]:
    getters = [compile_expression(expression) for expression in dimensions]
    makers: List[Callable[[], Any]] = [
        aggregate(i["expr"]) for i in columns if has_aggregate(i["expr"])
    ]
    # Without dimensions there is one group, even of no rows.
    groups: Dict[str, Group] = (
        {} if dimensions else {"[]": (View(None, {}), [make() for make in makers])}
    )
    for view in views:
        key = encode([getter(view) for getter in getters])
        if key not in groups:
            groups[key] = (view, [make() for make in makers])
        for accumulator in groups[key][1]:
            accumulator.add(view)
    return list(groups.values())


def _row(columns: List[Json], group: Group) -> Json:
    first, accumulators = group
    results = iter(accumulators)
    return {
        item["alias"]: next(results).result
        if has_aggregate(item["expr"])
        else compile_expression(item["expr"])(first)
        for item in columns
    }
