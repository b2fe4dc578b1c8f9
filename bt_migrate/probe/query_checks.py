"""Checks of queries: order, bounds, pages, literals and aggregates."""

from __future__ import annotations

from typing import Any, List

from bt_migrate.api.btql import (
    MAX_LIMIT,
    Bounds,
    from_line,
    page_query,
    quoted,
    rows_query,
    sort_line,
    summary_query,
)
from bt_migrate.api.request import QUERY_PATH
from bt_migrate.api.transactions import key_number, xact_of
from bt_migrate.api.transport import CURSOR_HEADER
from bt_migrate.errors import ApiError, MigrationError
from bt_migrate.probe.assumption import NOT_TRIED, Seen, broken, differs, holds, holds_if
from bt_migrate.probe.scratch import Scratch, compact, status_text

IDS = ["a", "b", "c", "d", "e"]
AWKWARD = ["it's", 'a "b"', "back\\slash", "line\nbreak", "ü\U0001f600", "'' or 1=1"]


def _five(scratch: Scratch) -> str:
    """Returns the id of a new dataset of five rows, each in its own transaction."""
    dataset = scratch.dataset()
    for number, row_id in enumerate(IDS):
        scratch.insert(dataset, {"id": row_id, "input": number})
    scratch.shown(dataset, len(IDS))
    return dataset


def _ids(rows: List[Any]) -> List[Any]:
    return [row.get("id") for row in rows]


def keys_sort_by_insertion(scratch: Scratch) -> Seen:
    dataset = _five(scratch)
    rising = scratch.rows(dataset)
    falling = scratch.query(page_query("datasets", [dataset], Bounds(newest_first=True), 100))
    try:
        keys = [key_number(str(row.get("_pagination_key"))) for row in rising]
    except ValueError as error:
        return broken(str(error))
    good = _ids(rising) == IDS and _ids(falling) == IDS[::-1] and keys == sorted(set(keys))
    return holds_if(good, f"rising {compact(_ids(rising))}, falling {compact(_ids(falling))}")


def key_bounds_cut_pages(scratch: Scratch) -> Seen:
    dataset = _five(scratch)
    keys = [str(row.get("_pagination_key")) for row in scratch.rows(dataset)]
    if len(keys) != len(IDS):
        return broken(f"{len(keys)} of 5 rows are shown")
    middle = Bounds(after_key=keys[1], end_key=keys[3])
    between = _ids(scratch.query(page_query("datasets", [dataset], middle, 100)))
    first = _ids(scratch.query(page_query("datasets", [dataset], Bounds(after_key=keys[0]), 2)))
    good = between == ["c", "d"] and first == ["b", "c"]
    return holds_if(good, f"above 2nd up to 4th: {compact(between)}; 2 above 1st: {compact(first)}")


def cursors_reach_every_row(scratch: Scratch) -> Seen:
    dataset = _five(scratch)
    text = "\n".join(["select: id", from_line("datasets", [dataset]), sort_line(False), "limit: 2"])
    ids: List[Any] = []
    cursor = ""
    short_page_has_cursor = False
    for _ in range(10):
        page = scratch.api.query(text + (f"\ncursor: {quoted(cursor)}" if cursor else ""))
        ids += _ids(page.json)
        cursor = page.headers[CURSOR_HEADER]
        short_page_has_cursor = short_page_has_cursor or (len(page.json) == 1 and bool(cursor))
        if not cursor or not page.json:
            break
    if ids != IDS:
        # Pages are cut by key, not by cursor.
        return differs(f"pages by cursor: {compact(ids)}")
    if short_page_has_cursor:
        return holds("all rows; each page with rows has a cursor")
    return differs("all rows; only full pages have a cursor")


def limits_above_1000(scratch: Scratch) -> Seen:
    dataset = scratch.filled({"id": "a", "input": 1})
    try:
        # not by `Api.query`, which lowers a limit that is refused
        text = page_query("datasets", [dataset], Bounds(), MAX_LIMIT + 1)
        scratch.post(QUERY_PATH, query=text, fmt="json")
    except ApiError as error:
        return holds(f"limit {MAX_LIMIT + 1} is {status_text(error)}")
    return differs(f"limit {MAX_LIMIT + 1} is accepted")


def literals_are_escaped(scratch: Scratch) -> Seen:
    rows = [{"id": f"{scratch.token} {text}", "input": text} for text in AWKWARD]
    dataset = scratch.filled(*rows)
    wrong = []
    for row in rows:
        text = rows_query("datasets", [dataset], [str(row["id"])], one_by_one=True)
        answered = scratch.query(text)
        if _ids(answered) != [row["id"]]:
            wrong.append(row["input"])
    return holds_if(not wrong, f"ids not found by a literal: {compact(wrong)}")


def lists_of_ids_work(scratch: Scratch) -> Seen:
    dataset = _five(scratch)
    try:
        ids = _ids(scratch.query(rows_query("datasets", [dataset], ["a", "c", "none"])))
    except ApiError as error:
        return differs(f"IN is {status_text(error)}")
    return holds_if(sorted(map(str, ids)) == ["a", "c"], f"id in [a, c, none]: {compact(ids)}")


def transactions_compare(scratch: Scratch) -> Seen:
    dataset = _five(scratch)
    rows = scratch.rows(dataset)
    if len(rows) != len(IDS):
        return broken(f"{len(rows)} of 5 rows are shown")
    bounds = Bounds(after_xact=xact_of(rows[2].get("_xact_id")))
    ids = _ids(scratch.query(page_query("datasets", [dataset], bounds, 100)))
    return holds_if(ids == ["d", "e"], f"_xact_id above that of the 3rd row: {compact(ids)}")


def aggregates_count(scratch: Scratch) -> Seen:
    datasets = [_five(scratch), scratch.filled({"id": "x", "input": 1})]
    alone = scratch.query(summary_query("datasets", "dataset_id", datasets[:1], Bounds()))
    together = scratch.query(summary_query("datasets", "dataset_id", datasets, Bounds()))
    counts = [
        (int(row.get("rows") or 0), int(row.get("ids") or 0)) for row in alone if "rows" in row
    ]
    by_object = {row.get("dataset_id"): row.get("rows") for row in together}
    good = counts == [(5, 5)] and by_object == dict(zip(datasets, (5, 1)))
    text = f"one dataset: {compact(counts)}; of two: {compact(sorted(by_object.values(), key=str))}"
    return holds_if(good, text)


def several_objects_in_one_query(scratch: Scratch) -> Seen:
    datasets = [scratch.filled({"id": name, "input": 1}) for name in "xy"]
    ids = sorted(map(str, _ids(scratch.query(page_query("datasets", datasets, Bounds(), 100)))))
    if ids == ["x", "y"]:
        return holds("rows of both objects")
    # A migration copes: it reads each object that seems empty once more, alone.
    return differs(f"rows of two objects with one row each: {compact(ids)}")


def queries_answer_rows(scratch: Scratch) -> Seen:
    """Check the fields of the newest log row of any project, for keys that can only read."""
    projects = list(scratch.api.list("/v1/project", page_size=5))
    for project in projects[:5]:
        try:
            rows = scratch.query(page_query("logs", [project["id"]], Bounds(newest_first=True), 1))
        except MigrationError as error:
            return broken(type(error).__name__)
        if rows:
            names = ("id", "_xact_id", "_pagination_key", "created", "span_id", "root_span_id")
            missing = [name for name in names if not rows[0].get(name)]
            return holds_if(not missing, f"missing in a row of logs: {compact(missing)}")
    return Seen(NOT_TRIED, "no project with logs among the first 5")
