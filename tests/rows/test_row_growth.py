"""A source that lives while it is copied: it grows, its rows change and go."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

import pytest

from bt_migrate.api.btql import Bounds
from bt_migrate.api.client import Api
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.api.transactions import pagination_key, xact_seconds
from bt_migrate.errors import ApiError
from bt_migrate.rows.read import RowSelection, pages
from tests.support.compare_orgs import Translation, streams, unequal_row
from tests.support.full_rows import SETTINGS, full_pair
from tests.support.loopback import Asked, Loopback, Reply
from tests.support.orgs import ROWS_OF, TIME_LIMIT_S, Pair, run
from tests.support.row_runs import World, counted, small_rows, world

LOGS = "project_logs"


def during_queries(w: World, act: Callable[[int], Any]) -> List[int]:
    """Call `act(n)` after the n-th answer to a query for rows; returns the list of calls."""
    calls: List[int] = []

    def on_request(number: int, moment: str, method: str, path: str) -> None:
        if (moment, path) == ("after", "/btql"):
            calls.append(number)
            act(len(calls))

    w.sandbox.on_request = on_request
    return calls


def fill(w: World, kind: str, rows: int, object_id: str = "") -> None:
    for start in range(0, rows, 10):
        w.source.insert(kind, object_id or w.project, small_rows(10, start))


@pytest.mark.parametrize("streams", ["1", "3"])
@pytest.mark.variants(1)
def test_a_source_that_grows_faster_than_it_is_read_is_copied_up_to_the_start(
    streams: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        fill(w, LOGS, 100)
        first = {row["id"] for row in w.source.rows(LOGS, w.project)}
        calls = during_queries(
            w, lambda n: w.source.insert(LOGS, w.project, small_rows(31, 1000 + 31 * n))
        )
        began = time.time()
        code = w.move(LOGS, "--fetch-limit", "30", "--read-streams", streams)
        w.sandbox.on_request = None
        there = [row["id"] for row in w.dest.rows(LOGS, w.twin(LOGS, w.project))]
        assert (code, first - set(there), len(there)) == (0, set(), len(set(there)))
        rows = {row["id"]: row for row in w.source.rows(LOGS, w.project)}
        last = max(xact_seconds(int(rows[row_id]["_xact_id"])) for row_id in there)
        assert last - began < 5  # the clocks are known to a second
        assert counted(w.root) == {"rows": {"fetched": len(there), "created": len(there)}}
        assert len(there) <= 100 + 31 * len(calls)


def test_a_group_whose_objects_grow_ends(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = w.make("dataset", "one", "two", "three")
        for object_id in ids:
            fill(w, "dataset", 50, object_id)

        def grow(n: int) -> None:
            for object_id in ids:
                w.source.insert("dataset", object_id, small_rows(11, 1000 + 11 * n))

        during_queries(w, grow)
        code = w.move("dataset", "--fetch-limit", "30")
        w.sandbox.on_request = None
        there = {
            object_id: [row["id"] for row in w.dest.rows("dataset", w.twin("dataset", object_id))]
            for object_id in ids
        }
        assert (
            code,
            [len({f"r{n:05}" for n in range(50)} - set(there[object_id])) for object_id in ids],
        ) == (
            0,
            [0, 0, 0],
        )
        assert max(Counter(w.sandbox.sent).values()) == 1


def test_rows_that_were_written_during_the_copy_arrive_with_the_next_run(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, LOGS, 60)
        during_queries(w, lambda n: w.source.insert(LOGS, w.project, small_rows(5, 1000 + 5 * n)))
        assert w.move(LOGS, "--read-streams", "2") == 0
        w.sandbox.on_request = None
        assert w.move(LOGS, "--new-run") == 0
        source, dest = w.contents(LOGS, [w.project])
        assert source == dest


@pytest.mark.parametrize("streams", ["1", "4"])
def test_rows_that_are_deleted_during_the_copy_disturb_no_other(
    streams: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        fill(w, LOGS, 300)
        gone: List[str] = []

        def delete(n: int) -> None:
            portion = [
                f"r{number:05}" for number in ((n * 37) % 300, (n * 61 + 5) % 300, 299 - n % 20)
            ]
            gone.extend(portion)
            w.source.insert(
                LOGS,
                w.project,
                [{"id": row_id, "_object_delete": True} for row_id in dict.fromkeys(portion)],
            )

        during_queries(w, delete)
        code = w.move(LOGS, "--fetch-limit", "30", "--read-streams", streams)
        w.sandbox.on_request = None
        there = [row["id"] for row in w.dest.rows(LOGS, w.twin(LOGS, w.project))]
        stayed = {row["id"] for row in w.source.rows(LOGS, w.project)}
        assert (code, stayed - set(there), set(there) - stayed - set(gone), len(there)) == (
            0,
            set(),
            set(),
            len(set(there)),
        )
        assert counted(w.root) == {"rows": {"fetched": len(there), "created": len(there)}}


def test_the_last_row_of_a_page_can_be_deleted_before_the_next_page_without_losing_others(
    tmp_path: Path,
) -> None:
    """The rows of a page's last key are read again with the next page; it may be empty by then."""
    with world(tmp_path) as w:
        fill(w, LOGS, 90)

        def delete(n: int) -> None:
            ids = [row["id"] for row in w.source.rows(LOGS, w.project)]
            w.source.insert(
                LOGS,
                w.project,
                [{"id": row_id, "_object_delete": True} for row_id in ids[29 * n : 29 * n + 2]],
            )

        during_queries(w, delete)
        assert w.move(LOGS, "--fetch-limit", "30") == 0
        w.sandbox.on_request = None
        there = [row["id"] for row in w.dest.rows(LOGS, w.twin(LOGS, w.project))]
        assert {row["id"] for row in w.source.rows(LOGS, w.project)} - set(there) == set()


@pytest.mark.parametrize("kind", [LOGS, "dataset"])
@pytest.mark.parametrize("streams", ["1", "4"])
def test_rows_that_change_during_the_copy_arrive_once_as_one_of_their_versions(
    kind: str, streams: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        ids = [w.project] if kind == LOGS else w.make("dataset", "one", "two")
        for object_id in ids:
            fill(w, kind, 200, object_id)
        versions: Dict[str, List[Any]] = {f"r{n:05}": [{"n": n}] for n in range(200)}

        def change(n: int) -> None:
            for number in {(n * 31) % 200, (n * 57 + 29) % 200, 199 - n % 9}:
                value = {"n": number, "changed": n}
                versions[f"r{number:05}"].append(value)
                for object_id in ids:
                    w.source.insert(kind, object_id, [{"id": f"r{number:05}", "input": value}])

        during_queries(w, change)
        code = w.move(kind, "--fetch-limit", "30", "--read-streams", streams)
        w.sandbox.on_request = None
        for object_id in ids:
            found = {row["id"]: row["input"] for row in w.dest.rows(kind, w.twin(kind, object_id))}
            assert (code, sorted(found)) == (0, sorted(versions))
            assert [
                row
                for row, value in found.items()
                if json.dumps(value) not in map(json.dumps, versions[row])
            ] == []


@pytest.mark.parametrize(
    "more",
    [20, pytest.param(60, marks=pytest.mark.long)],
    ids=["less than a page", "more than a page"],
)
def test_a_copy_ends_although_rows_come_change_and_go_with_each_query(
    more: int, tmp_path: Path
) -> None:
    """All kinds of rows: with each query some come, one changes and one goes."""
    with full_pair() as pair:
        objects = [
            (kind, holder["id"])
            for kind, holder in ROWS_OF.items()
            for holder in pair.source.objects(holder)
        ]
        first = {
            (object_id, row["id"])
            for kind, object_id in objects
            for row in pair.source.rows(kind, object_id)
        }
        life = Life(pair.source, objects, first, more)
        pair.sandbox.on_request = life
        whole = run(pair.sandbox, tmp_path / "runs", **SETTINGS)
        pair.sandbox.on_request = None
        changed, gone = life.changed, life.gone
        assert (whole.code, len(changed) > 10, len(gone) > 10) == (0, True, True), whole.last_words
        assert wrong_after_life(pair, first, changed, gone) == []


class Life:
    """Changes the source after each query: `more` rows come, one changes, one goes."""

    def __init__(
        self, source: Any, objects: List[Tuple[str, str]], first: Set[Any], more: int
    ) -> None:
        self.changed: Dict[Any, List[Any]] = {}
        self.gone: Set[Any] = set()
        self._source = source
        self._objects = objects
        self._first = first
        self._more = more

    def __call__(self, number: int, moment: str, method: str, path: str) -> None:
        if (moment, path) != ("after", "/btql"):
            return
        kind, object_id = self._objects[number % len(self._objects)]
        plain = [
            row
            for row in self._source.rows(kind, object_id)
            if (object_id, row["id"]) in self._first and "q" in row["input"]
        ]
        self._source.insert(kind, object_id, small_rows(self._more, 1000 * number))
        if len(plain) > 4:
            change, delete = plain[number % 4], plain[-1 - number % 4]
            new = {"id": change["id"], "input": {"changed": number}}
            self.changed[(object_id, change["id"])] = [change["input"], new["input"]]
            self.gone.add((object_id, delete["id"]))
            self._source.insert(kind, object_id, [new])
            self._source.insert(kind, object_id, [{"id": delete["id"], "_object_delete": True}])


def wrong_after_life(
    pair: Pair, first: Set[Any], changed: Dict[Any, List[Any]], gone: Set[Any]
) -> List[str]:
    """Rows from the start that neither changed nor went are there as they are, and the others in a
    version that there was.
    """
    translation = Translation(pair)
    wrong: List[str] = []
    for kind, source, dest in streams(translation):
        rows = pair.dest.rows(kind, dest["id"])
        found = {row["id"]: row for row in rows}
        wrong += [f"{dest['name']}: rows twice"] if len(found) < len(rows) else []
        for row in pair.source.rows(kind, source["id"]):
            place = (source["id"], row["id"])
            if place in first and place not in gone and row["id"] not in found:
                wrong.append(f"{source['name']}: {row['id']} missing")
            elif row["id"] in found and place not in changed:
                wrong += unequal_row(translation, kind, row, found[row["id"]])
            elif row["id"] in found and found[row["id"]]["input"] not in changed[place]:
                wrong.append(f"{source['name']}: {row['id']} in a version that there never was")
    return wrong


def test_a_server_clock_that_is_behind_ends_no_stream_early() -> None:
    """The Date is a gateway's. Rows of an hour ago, by its clock of now, are not new."""
    now = int(time.time())
    rows = [
        {"id": str(number), "_pagination_key": pagination_key((now - 3597 << 32) + number)}
        for number in range(9)
    ]
    late = {"Date": formatdate(now - 3600, usegmt=True)}

    def answer(asked: Asked) -> Reply:
        if asked.path != "/btql":
            return Reply(headers=late)
        after = re.search(rb"_pagination_key > '([^']+)'", asked.body)
        portion = [row for row in rows if not after or row["_pagination_key"] > after[1].decode()][
            :4
        ]
        late["Date"] = formatdate(
            time.time() - 3595, usegmt=True
        )  # as if the page had taken five seconds
        return Reply(body=json.dumps({"data": portion}).encode(), headers=late)

    with Loopback(answer) as server:
        api = Api(Endpoint("source", server.url, "sk"), Limits(0, 0.01, 4), writable=False)
        api.get("/v1/organization")
        selection = RowSelection("logs", ["p"], Bounds())
        found = [row["id"] for page in pages(api, selection, limit=4) for row in page.rows]
    assert found == [row["id"] for row in rows]


@pytest.mark.parametrize(
    ("limit", "sizes"), [(4, (3, 9, 2, 1)), (1, (2, 1, 3)), (1000, (5, 1000)), (1000, (1000, 5))]
)
def test_more_rows_of_one_key_than_fit_on_a_page_are_all_read(
    limit: int, sizes: Tuple[int, ...]
) -> None:
    found, expected = paged(limit, sizes)
    assert sorted(found) == sorted(expected)


def test_more_rows_of_one_key_than_a_query_returns_are_reported() -> None:
    with pytest.raises(ApiError, match="1,001 rows share the key p0+2"):
        paged(1000, (5, 1001))


def test_the_next_page_is_on_its_way_while_a_slow_reader_is_busy_with_the_last() -> None:
    """Also when that one came before it was wanted: never more than one page is read ahead, and
    none is asked for twice.
    """
    begun: List[int] = []
    missed: List[int] = []

    def busy(number: int) -> None:
        due = number + 1 if 1 < number < 13 else 0  # a first page is often the only one
        end = time.monotonic() + TIME_LIMIT_S
        while len(begun) < due and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)  # the answer is there before it is wanted
        if due and len(begun) != due:
            missed.append(number)

    found, expected = paged(4, [1] * 38, counted=38, on_page=busy, on_query=lambda: begun.append(1))
    assert (found, missed, len(begun)) == (expected, [], 13)


def paged(
    limit: int,
    sizes: Sequence[int],
    *,
    counted: Optional[int] = None,
    on_page: Callable[[int], None] = lambda number: None,
    on_query: Callable[[], None] = lambda: None,
) -> Tuple[List[str], List[str]]:
    """(ids that are read, ids that there are) of an object with so many rows of each key."""
    found: List[str] = []
    rows = [
        {"id": f"{key} {n}", "_pagination_key": pagination_key(key)}
        for key, size in enumerate(sizes, 1)
        for n in range(size)
    ]

    def answer(asked: Asked) -> Reply:
        on_query()
        query = json.loads(asked.body)["query"]
        after, upto = (
            re.search(r"_pagination_key > '([^']+)'", query),
            re.search(r"_pagination_key <= '([^']+)'", query),
        )
        portion = [row for row in rows if not after or row["_pagination_key"] > after[1]]
        portion = [row for row in portion if not upto or row["_pagination_key"] <= upto[1]]
        if "count(1)" in query:
            return Reply(body=json.dumps({"data": [{"rows": len(portion)}]}).encode())
        return Reply(
            body=json.dumps({"data": portion[: int(query.rpartition("limit: ")[2])]}).encode()
        )

    with Loopback(answer) as server:
        api = Api(Endpoint("source", server.url, "sk"), Limits(0, 0.01, 4), writable=False)
        read = pages(api, RowSelection("logs", ["p"], Bounds(), counted), limit=limit)
        for number, page in enumerate(read, 1):
            found += [row["id"] for row in page.rows]
            on_page(number)
    return found, [str(row["id"]) for row in rows]
