"""BTQL of the sandbox over HTTP: its three writings, paging, filters, groups and limits."""

from __future__ import annotations

import time
from typing import Any, Dict, List

import pytest

from bt_migrate.sandbox.btql.parse import parse, string_value
from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg
from tests.support.sandbox_http import Http

ROWS: List[Dict[str, Any]] = [
    {
        "id": "a",
        "span_id": "a",
        "created": "2024-01-01T10:00:00Z",
        "metadata": {"n": 1, "who": "Ann"},
        "tags": ["x"],
        "input": "it's",
    },
    {
        "id": "b",
        "span_id": "b",
        "created": "2024-01-01T23:59:59.999Z",
        "metadata": {"n": 2, "who": "bob"},
        "scores": {"s": 0.25},
    },
    {
        "id": "c",
        "span_id": "c",
        "created": "2024-01-02T01:00:00+02:00",
        "metadata": {"n": 3},
        "scores": {"s": 0.75},
        "error": "boom",
    },
    {
        "id": "d",
        "span_id": "d",
        "created": "2024-02-01T00:00:00Z",
        "root_span_id": "a",
        "span_parents": ["a"],
        "output": "y" * 300,
    },
]


@pytest.fixture
def project(acme: SandboxOrg) -> str:
    """A project with the four ROWS, in two transactions."""
    made = str(acme.create("project", {"name": "P"})["id"])
    acme.insert("project_logs", made, ROWS[:2])
    acme.insert("project_logs", made, ROWS[2:])
    return made


def ids(answer: Dict[str, Any]) -> str:
    return "".join(row["id"] for row in answer["data"])


@pytest.mark.parametrize(
    "query",
    [
        "select: * | from: project_logs('ID') spans | sort: _pagination_key asc | limit: 2",
        "limit: 2\nsort: _pagination_key\nfrom: project_logs('ID')\nselect: *",
        "SELECT * FROM project_logs('ID', shape => 'spans') ORDER BY _pagination_key ASC LIMIT 2",
        "select * from project_logs('P') order by _pagination_key limit 2;",
        {
            "select": [{"op": "star"}],
            "from": {
                "op": "function",
                "name": {"op": "ident", "name": ["project_logs"]},
                "args": [{"op": "literal", "value": "ID"}],
            },
            "sort": [{"expr": {"op": "ident", "name": ["_pagination_key"]}, "dir": "asc"}],
            "cursor": None,
            "limit": 2,
        },
        {
            "from": "project_logs('ID')",
            "sort": [{"expr": {"op": "ident", "name": ["_pagination_key"]}}],
            "limit": 2,
        },
    ],
)
def test_a_query_can_be_written_in_several_ways(
    http: Http, acme: SandboxOrg, project: str, query: Any
) -> None:
    answer = http.btql(with_id(query, project))
    assert answer["data"] == acme.rows("project_logs", project)[:2]
    last = acme.rows("project_logs", project)[-1]["_xact_id"]
    assert answer["freshness_state"] == {
        "last_considered_xact_id": last,
        "last_processed_xact_id": last,
    }
    assert (answer["realtime_state"]["type"], answer["schema"]["type"]) == ("on", "array")
    assert answer["cursor"]


def with_id(query: Any, project: str) -> Any:
    if isinstance(query, dict):
        return {name: with_id(value, project) for name, value in query.items()}
    if isinstance(query, list):
        return [with_id(value, project) for value in query]
    return query.replace("ID", project) if isinstance(query, str) else query


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("id = 'b'", "b"),
        ("id IN ['a', 'd', 'z']", "ad"),
        ("id in ('a','b') and id != 'a'", "b"),
        ("metadata.n >= 2", "bc"),
        ('"metadata"."who" = \'Ann\'', "a"),
        ("metadata.who ILIKE 'B%'", "b"),
        ("metadata.who like 'B%'", ""),
        ("metadata.who is null", "cd"),
        ("error IS NOT NULL", "c"),
        ("not (metadata.n = 1 or metadata.n = 2)", "c"),
        ("scores.s > 0.5", "c"),
        ("created >= '2024-01-01T23:00:00Z' and created < '2024-01-02'", "bc"),
        ("created < '2024-01-01T12:00:00+02:00'", ""),
        ("created <= '2024-01-01T12:00:00+02:00'", "a"),
        ("created > NOW() - INTERVAL 1 DAY", ""),
        ("created > NOW() - INTERVAL '3650 days'", "abcd"),
        ("input = 'it''s'", "a"),
        ("input = 'it\\'s'", "a"),
        ("tags includes 'x'", "a"),
        ("is_root = false", "d"),
        ("root_span_id IN ['a']", "ad"),
        ("metadata.n between 2 and 3", "bc"),
        ("metadata.n + 1 = 3", "b"),
        ("day(created) = '2024-01-01T00:00:00Z'", "abc"),
        ("_xact_id > '0'", "abcd"),
    ],
)
def test_filters_keep_what_they_say(http: Http, project: str, condition: str, found: str) -> None:
    native = (
        f"select: * | from: project_logs('{project}') | filter: {condition} | sort: "
        "_pagination_key asc"
    )
    sql = f"SELECT * FROM project_logs('{project}') WHERE {condition} ORDER BY _pagination_key"
    assert (ids(http.btql(native)), ids(http.btql(sql))) == (found, found)


def test_pages_by_key_range_meet_without_overlap(
    http: Http, acme: SandboxOrg, project: str
) -> None:
    keys = [row["_pagination_key"] for row in acme.rows("project_logs", project)]
    source = (
        "select: id | from: project_logs('%s') | filter: _pagination_key %s | sort: "
        "_pagination_key asc"
    )
    assert ids(http.btql(source % (project, f"> '{keys[1]}'"))) == "cd"
    assert (
        ids(http.btql(source % (project, f">= '{keys[1]}' and _pagination_key < '{keys[3]}'")))
        == "bc"
    )
    assert ids(http.btql(source % (project, f"= '{keys[2]}'"))) == "c"
    assert ids(http.btql(source % (project, "> ''"))) == "abcd"


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("", "dcba"),
        ("| sort: _pagination_key desc", "dcba"),
        ("| sort: _pagination_key asc", "abcd"),
    ],
)
def test_cursors_follow_the_order_of_the_key(
    http: Http, project: str, sort: str, order: str
) -> None:
    query = f"select: id | from: project_logs('{project}') {sort} | limit: 3"
    first = http.btql(query)
    second = http.btql(query + " | cursor: '{}'".format(first["cursor"]))
    third = http.btql(query + " | cursor: '{}'".format(second["cursor"]))
    assert [ids(page) for page in (first, second, third)] == [order[:3], order[3:], ""]
    assert "cursor" not in third
    sql = "SELECT id FROM project_logs('%s') %s LIMIT 3 OFFSET '%s'"
    direction = sort.replace("| sort:", "ORDER BY")
    assert ids(http.btql(sql % (project, direction, first["cursor"]))) == order[3:]


def test_several_objects_are_read_as_one_even_when_their_keys_are_equal(
    http: Http, acme: SandboxOrg
) -> None:
    project = acme.create("project", {"name": "P"})["id"]
    sets = [acme.create("dataset", {"project_id": project, "name": name})["id"] for name in "xy"]
    http.post(
        "/v1/insert", {"dataset": {each: {"events": [{"id": "a"}, {"id": "b"}]} for each in sets}}
    )
    for direction in ("asc", "desc"):
        query = (
            "select: * | from: dataset('{}', '{}') | sort: _pagination_key {} | limit: 1".format(
                *sets,
                direction,
            )
        )
        seen, cursor = [], ""
        while len(seen) < 10:
            page = http.btql(query + cursor)
            seen += [(row["dataset_id"], row["id"]) for row in page["data"]]
            if not page.get("cursor"):
                break
            cursor = " | cursor: '{}'".format(page["cursor"])
        assert sorted(seen) == sorted((each, row_id) for each in sets for row_id in "ab")


@pytest.mark.parametrize(
    "query",
    [
        "select: * | from: project_logs('ID') | sort: created | cursor: 'x'",
        "select: * | from: project_logs('ID') | cursor: 'x'",
        "SELECT * FROM project_logs('ID') LIMIT 1 OFFSET 5",
        "select: * | from: project_logs('ID') | limit: 2000",
        "select: * | from: nonsense('ID')",
        "select: * | from: project_logs('ID') everything",
        "select: * from: project_logs('ID')",
        "select: * | from: project_logs('ID') | filter: frobnicate(id)",
        "select: * | from: project_logs('ID') | filter: id = 'open",
        "select: * | from: project_logs('ID') | having: 1",
        "SELECT id, count(1) FROM project_logs('ID')",
        {"from": "project_logs('ID')", "select": ["*"]},
        {"from": "project_logs('ID')", "select": [{"expr": {"op": "ident", "name": ["id"]}}]},
        {"from": "project_logs('ID')", "pivot": []},
        {},
        None,
    ],
)
def test_what_cannot_be_answered_is_refused_with_400(
    sandbox: Sandbox, http: Http, project: str, query: Any
) -> None:
    sandbox.btql_limit_cap = 1000
    answer = http.post("/btql", {"query": with_id(query, project)})
    assert (answer.status_code, answer.json()["Code"]) == (400, "BadRequestError")


def test_a_query_without_a_limit_answers_1000_rows_and_a_cursor(
    http: Http, acme: SandboxOrg
) -> None:
    project = acme.create("project", {"name": "Q"})["id"]
    acme.insert("project_logs", project, [{"id": str(number)} for number in range(1001)])
    answer = http.btql(f"from: project_logs('{project}')")
    assert (len(answer["data"]), bool(answer["cursor"])) == (1000, True)


def test_columns_are_named_and_computed(http: Http, project: str) -> None:
    query = (
        "select: id, metadata.who, metadata.n as number, day(created) | from: "
        "project_logs('%s') | filter: id = 'a'"
    )
    assert http.btql(query % project)["data"] == [
        {"id": "a", "who": "Ann", "number": 1, "day(created)": "2024-01-01T00:00:00Z"}
    ]


def test_the_name_of_a_span_is_a_column(http: Http, project: str, acme: SandboxOrg) -> None:
    """As in a recorded answer of May 2026."""
    span = {"id": "e", "span_attributes": {"name": "Chat Completion"}}
    acme.insert("project_logs", project, [span])
    rows = http.btql(f"select: name | from: project_logs('{project}') | limit: 2")["data"]
    assert rows == [{"name": "Chat Completion"}, {"name": None}]


def test_groups_of_a_query_hold_counts_and_measures(http: Http, project: str) -> None:
    native = (
        "dimensions: day(created) as day | measures: count(1) as n, max(metadata.n) as m | "
        "sort: day | "
    )
    expected = [
        {"day": "2024-01-01T00:00:00Z", "n": 3, "m": 3},
        {"day": "2024-02-01T00:00:00Z", "n": 1, "m": None},
    ]
    assert http.btql(native + f"from: project_logs('{project}')")["data"] == expected
    sql = (
        "SELECT day(created) AS day, count(*) AS n, max(metadata.n) AS m FROM "
        "project_logs('%s') GROUP BY day ORDER BY 1"
    )
    assert http.btql((sql % project).replace("ORDER BY 1", "ORDER BY n DESC"))["data"] == expected
    large = (
        "SELECT metadata.who, count(1) AS n FROM project_logs('%s') GROUP BY metadata.who "
        "HAVING n > 1"
    )
    assert http.btql(large % project)["data"] == [{"who": None, "n": 2}]


def test_measures_without_groups_are_about_all_rows(
    http: Http, acme: SandboxOrg, project: str
) -> None:
    rows = acme.rows("project_logs", project)
    query = (
        "SELECT count(1), count_distinct(root_span_id) AS traces, min(created) AS lo, "
        "max(_xact_id) AS head, "
        "sum(scores.s) AS total, avg(scores.s) AS mean FROM project_logs('%s')"
    )
    assert http.btql(query % project)["data"] == [
        {
            "count(1)": 4,
            "traces": 3,
            "lo": "2024-01-01T10:00:00Z",
            "head": rows[-1]["_xact_id"],
            "total": 1.0,
            "mean": 0.5,
        }
    ]
    empty = acme.create("project", {"name": "empty"})["id"]
    assert http.btql(f"measures: count(1) as n | from: project_logs('{empty}')")["data"] == [
        {"n": 0}
    ]
    few = "SELECT count(1) AS n FROM project_logs('%s') WHERE _pagination_key > '%s'"
    assert http.btql(few % (project, rows[0]["_pagination_key"]))["data"] == [{"n": 3}]


def test_other_orders_sort_by_value(http: Http, project: str) -> None:
    query = f"select: id | from: project_logs('{project}') | sort: created desc | limit: 3"
    answer = http.btql(query)
    assert (ids(answer), answer.get("cursor")) == ("dbc", None)


def test_shapes_show_spans_whole_traces_or_previews(http: Http, project: str) -> None:
    query = "select: * | from: project_logs('%s') %s | filter: id = 'd'"
    assert ids(http.btql(query % (project, "spans"))) == "d"
    assert ids(http.btql(query % (project, "traces"))) == "da"
    assert ids(http.btql(f"select: * | from: project_logs('{project}') summary")) == "cba"
    short = http.btql(query % (project, "spans") + " | preview_length: 10")["data"][0]
    assert short["output"] == "y" * 10 + "..."
    assert (
        http.btql(query % (project, "spans") + " | preview_length: -1")["data"][0]["output"]
        == "y" * 300
    )


def test_experiments_and_datasets_can_be_read_as_of_a_version(
    http: Http, acme: SandboxOrg, project: str
) -> None:
    dataset = acme.create("dataset", {"project_id": project, "name": "D"})["id"]
    acme.insert("dataset", dataset, [{"id": "a", "input": 1}, {"id": "b"}])
    version = acme.rows("dataset", dataset)[0]["_xact_id"]
    acme.insert(
        "dataset",
        dataset,
        [{"id": "a", "input": 2}, {"id": "b", "_object_delete": True}, {"id": "c"}],
    )
    query = f"select: id, input | from: dataset('{dataset}') | sort: _pagination_key asc"
    assert http.btql(query)["data"] == [{"id": "a", "input": 2}, {"id": "c", "input": None}]
    assert http.btql(query, version=version)["data"] == [
        {"id": "a", "input": 1},
        {"id": "b", "input": None},
    ]
    logs = {"query": f"from: project_logs('{project}')", "version": version}
    assert http.post("/btql", logs).status_code == 400


def test_prompts_and_functions_of_a_project_are_rows_too(
    http: Http, acme: SandboxOrg, project: str
) -> None:
    prompt = acme.create("prompt", {"project_id": project, "name": "p", "slug": "p"})
    code = {"type": "code", "data": {"type": "inline"}}
    tool = {
        "project_id": project,
        "name": "t",
        "slug": "t",
        "function_type": "tool",
        "function_data": code,
    }
    acme.create("function", tool)
    acme.patch("prompt", prompt["id"], {"name": "q"})
    query = f"SELECT slug FROM project_functions('{project}') WHERE function_type = 'tool'"
    assert http.btql(query)["data"] == [{"slug": "t"}]
    history = http.btql(f"select: name | from: project_prompts('{project}')", audit_log=True)
    assert history["data"] == [{"name": "q"}, {"name": "p"}]


def test_fresh_rows_show_after_the_indexing_lag(
    sandbox: Sandbox, http: Http, acme: SandboxOrg, project: str
) -> None:
    query = f"select: id, input | from: project_logs('{project}') | sort: _pagination_key asc"
    time.sleep(0.6)
    sandbox.indexing_lag = 0.5
    acme.insert("project_logs", project, [{"id": "a", "input": "new"}, {"id": "e"}])
    assert ids(http.btql(query)) == "abcd"
    assert http.btql(query)["data"][0]["input"] == "it's"
    time.sleep(0.6)
    assert ids(http.btql(query)) == "abcde"


def test_queries_beyond_the_limit_of_a_minute_get_429(
    sandbox: Sandbox, http: Http, project: str
) -> None:
    sandbox.btql_per_minute = 2
    query = f"from: project_logs('{project}')"
    for _ in range(2):
        http.btql(query)
    answer = http.post("/btql", {"query": query})
    assert (answer.status_code, answer.json()["Code"]) == (429, "TooManyRequestsError")
    assert "Rate limit: 2 requests per 60 seconds. Consumed: 3" in answer.json()["Message"]
    assert 58 <= int(answer.headers["Retry-After"]) <= 60
    sandbox.send_retry_after = False
    assert "Retry-After" not in http.post("/btql", {"query": query}).headers


@pytest.mark.parametrize(
    ("text", "value"), [("'a''b'", "a'b"), ("'a\\'b'", "a'b"), ("'\\\\n'", "\\n"), ("'\\d'", "\\d")]
)
def test_string_literals_accept_doubled_and_backslash_quotes(text: str, value: str) -> None:
    assert string_value(text) == value


def test_clauses_are_parsed_to_the_json_form() -> None:
    assert parse("from: dataset('x', 'y') traces | filter: a.b > -1 and not c") == {
        "from": {
            "op": "function",
            "name": {"op": "ident", "name": ["dataset"]},
            "args": [{"op": "literal", "value": "x"}, {"op": "literal", "value": "y"}],
            "shape": "traces",
        },
        "filter": {
            "op": "and",
            "left": {
                "op": "gt",
                "left": {"op": "ident", "name": ["a", "b"]},
                "right": {"op": "literal", "value": -1},
            },
            "right": {"op": "not", "expr": {"op": "ident", "name": ["c"]}},
        },
    }
