"""Makes what a recorded organization held before a session, and sends its requests to a sandbox."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import Callable, Collection, Dict, Iterator, List, Tuple

import requests

from bt_migrate.sandbox.data.clock import micros
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg
from tests.support.exchanges import (
    KEY,
    LOST_QUERIES,
    MAX_SECONDS_APART,
    NO_ID,
    PROJECT_NAMES,
    QUERY_UNKNOWN,
    UUID,
    Exchange,
    Json,
    Pairing,
)


@dataclass
class World:
    """A sandbox with what the recorded organization held before a session."""

    sandbox: Sandbox
    org: SandboxOrg
    pairing: Pairing


def prepare(sandbox: Sandbox, exchanges: List[Exchange]) -> World:
    """Create what existed before a session, by its answers, in a new organization."""
    sandbox.clock.set(1_750_000_000)
    org = sandbox.add_org(_organization_name(exchanges), api_key=KEY)
    return fill(sandbox, org, exchanges)


def fill(sandbox: Sandbox, org: SandboxOrg, exchanges: List[Exchange]) -> World:
    world = World(sandbox, org, Pairing())
    for org_id in _organization_ids(exchanges):
        world.pairing.learn(org_id, org.id)
    existing = [*_existing(exchanges), *_row_holders(exchanges).values()]
    for project in _projects(exchanges, existing):
        _create(world, "project", project)
    for taken in _taken_names(exchanges):
        _create(world, "experiment", taken)
    for kind in ("dataset", "experiment"):
        for known in sorted(
            (value for name, value in existing if name == kind), key=lambda value: value["created"]
        ):
            _create(world, kind, known)
    functions = [value for name, value in existing if name == "function"]
    _create_functions(world, functions)
    inserted = {
        row_id
        for exchange in exchanges
        if exchange.path.endswith("/insert")
        for row_id in exchange.response["row_ids"]
    }
    rows = _missing_rows(world, exchanges, inserted)
    _carry_out([*_write_versions(world, functions), *_write_rows(world, rows)])
    _learn_rows(world, rows)
    return world


# A write of the past: unix seconds, and what carries it out.
Write = Tuple[int, Callable[[], None]]


def _carry_out(writes: List[Write]) -> None:
    for _, write in sorted(writes, key=lambda item: item[0]):
        write()


def _existing(exchanges: List[Exchange]) -> Iterator[Tuple[str, Json]]:
    """(kind, object) of each object that was there before the session, once."""
    seen = set()
    for exchange in exchanges:
        for kind, value in _objects(exchange):
            version = value["_xact_id"] if kind == "function" else ""
            if (value["id"], version) in seen:
                continue
            seen.add((value["id"], version))
            if not _is_new(exchange, kind, value):
                yield kind, value


def _objects(exchange: Exchange) -> Iterator[Tuple[str, Json]]:
    response = exchange.response
    if exchange.status != 200 or not isinstance(response, dict):
        return
    for kind in ("project", "dataset", "experiment"):
        if "/register" in exchange.path and kind in response:
            yield kind, response[kind]
    if "base_exp_name" in response:
        base = {"id": response["base_exp_id"], "name": response["base_exp_name"]}
        yield "experiment", {**response, **base, "created": "2025-10-29T19:00:00Z"}
        return
    kind = KIND_OF_PATH.get("/".join(exchange.path.split("?")[0].split("/")[:3]), "")
    for value in response.get("objects", [response]):
        if kind and "created" in value and "_object_delete" not in value:
            yield kind, value


KIND_OF_PATH = {
    "/v1/project": "project",
    "/v1/dataset": "dataset",
    "/v1/experiment": "experiment",
    "/v1/function": "function",
    "/v1/prompt": "function",
    "/api/dataset": "dataset",
}


def _is_new(exchange: Exchange, kind: str, value: Json) -> bool:
    """Whether the exchange itself made the object."""
    apart = abs((micros(value["created"]) or 0) / 1e6 - exchange.seconds)
    made = exchange.method == "POST" and "x-bt-found-existing" not in exchange.headers
    if "/register" in exchange.path and exchange.response.get("found_existing"):
        return False
    return made and apart < MAX_SECONDS_APART


def _organization_name(exchanges: List[Exchange]) -> str:
    logins = [
        exchange.response["org_info"][0]["name"]
        for exchange in exchanges
        if exchange.path == "/api/apikey/login" and exchange.status == 200
    ]
    return logins[0] if logins else "acme"


def _organization_ids(exchanges: List[Exchange]) -> List[str]:
    text = json.dumps([[exchange.request, exchange.response] for exchange in exchanges])
    return sorted(set(re.findall(r"0a0a0a00-[0-9a-f-]{27}", text)))


def _projects(exchanges: List[Exchange], existing: List[Tuple[str, Json]]) -> List[Json]:
    """The projects of the session, from where they are shown whole or from ids of projects."""
    found: Dict[str, Json] = {value["id"]: value for kind, value in existing if kind == "project"}
    made = {
        value["id"]
        for exchange in exchanges
        for kind, value in _objects(exchange)
        if kind == "project" and value["id"] not in found
    }
    for exchange in exchanges:
        text = json.dumps([exchange.path, exchange.request, exchange.response, exchange.rows()])
        for project_id in re.findall(rf'"project_id": "({UUID.pattern})"', text):
            if project_id not in made and project_id != NO_ID:
                blank = {
                    "id": project_id,
                    "name": PROJECT_NAMES.get(project_id, project_id),
                    "created": "2025-10-01T00:00:00Z",
                }
                found.setdefault(project_id, blank)
    return sorted(found.values(), key=lambda value: str(value["created"]))


def _create(world: World, kind: str, recorded: Json) -> None:
    """Make an object at the time at which the recorded one was made, and pair their ids."""
    fields = KINDS[kind].create
    body = {
        name: value
        for name, value in recorded.items()
        if name in fields and value is not None and name not in LEFT_OUT
    }
    world.sandbox.clock.set((micros(recorded["created"]) or 0) / 1e6)
    body = json.loads(world.pairing.translated(json.dumps(body)))
    made = world.org.create(kind, body)
    if recorded.get("settings"):
        world.org.patch(kind, made["id"], {"settings": recorded["settings"]})
    world.pairing.learn(recorded["id"], made["id"])


LEFT_OUT = ("dataset_id", "base_exp_id")  # of experiments: some of them were deleted since


def _create_functions(world: World, recorded: List[Json]) -> None:
    """Functions are listed in order of their first version, and show the time of their last one."""
    for value in reversed(list({value["id"]: value for value in recorded}.values())):
        early = dict(value, created="2025-10-01T00:00:00Z", name="an earlier version")
        _create(world, "function", dict(early, function_data=value.get("function_data")))


def _write_versions(world: World, recorded: List[Json]) -> Iterator[Write]:
    for value in sorted(recorded, key=lambda value: str(value["_xact_id"])):
        yield _seconds_of_xact(value), functools.partial(_write_version, world, value)


def _write_version(world: World, value: Json) -> None:
    _create(world, "function", value)
    shown = next(item for item in world.org.objects("function") if item["slug"] == value["slug"])
    world.pairing.learn(value["_xact_id"], shown["_xact_id"])


def _seconds_of_xact(value: Json) -> int:
    return (int(value["_xact_id"]) & ((1 << 48) - 1)) >> 16


SERVER_FIELDS = frozenset(
    "_pagination_key _xact_id audit_data is_root project_id dataset_id experiment_id org_id log_id "
    "comments classifications _async_scoring_state".split()
)


def _taken_names(exchanges: List[Exchange]) -> Iterator[Json]:
    """The experiments because of which a new one got a suffix."""
    for exchange in exchanges:
        created = exchange.route == "POST /v1/experiment" and exchange.status == 200
        if created and exchange.response["name"] != exchange.request["name"]:
            made = dict(exchange.request, id="taken " + exchange.response["id"])
            yield dict(made, created="2025-10-01T00:00:00Z", ensure_new=None)


def _row_holders(exchanges: List[Exchange]) -> Dict[str, Tuple[str, Json]]:
    """Id -> (kind, body) of the datasets and experiments of which only rows are shown."""
    shown = {value["id"] for exchange in exchanges for _, value in _objects(exchange)}
    found = {}
    for exchange in exchanges:
        for row in exchange.rows():
            kind, object_id = _holder(row) if "project_id" in row else ("", "")
            if kind in ("dataset", "experiment") and object_id not in shown:
                made = {"id": object_id, "name": "only rows", "project_id": row["project_id"]}
                found[object_id] = (kind, dict(made, created="2025-10-01T00:00:00Z"))
    return found


def _is_missing(world: World, row: Json) -> bool:
    """Whether the row is shown whole, its object is there, and the row itself is not."""
    if "_pagination_key" not in row or not world.pairing.knows(_holder(row)[1]):
        return False
    return not (world.pairing.knows(row["_pagination_key"]) or world.pairing.knows(row["id"]))


def _missing_rows(
    world: World, exchanges: List[Exchange], except_ids: Collection[str] = ()
) -> List[Json]:
    """The rows that these answers show and that are not there."""
    rows: Dict[str, Json] = {}
    for exchange in exchanges:
        for row in exchange.rows():
            if _is_missing(world, row) and row["id"] not in except_ids:
                rows.setdefault(row["id"], row)
    return list(rows.values())


def _write_rows(world: World, rows: List[Json]) -> Iterator[Write]:
    """The inserts of these rows in their transactions. Edited rows are written twice."""
    together: Dict[Tuple[int, str], List[Json]] = {}
    for row in sorted(rows, key=lambda row: str(row["_pagination_key"])):
        place = (int(row["_pagination_key"][1:]) >> 16, _holder(row)[1])
        together.setdefault(place, []).append(row)
    for (moment, _), group in together.items():
        yield moment >> 16, functools.partial(_insert, world, group, moment >> 16)
    for row in sorted(rows, key=lambda row: str(row["_xact_id"])):
        written = _seconds_of_xact(row)
        if written - (int(row["_pagination_key"][1:]) >> 32) > 2:
            yield written, functools.partial(_insert, world, [row], written)


def _learn_rows(world: World, rows: List[Json]) -> None:
    for kind, object_id in sorted({_holder(row) for row in rows}):
        ours = {row["id"]: row for row in world.org.rows(kind, world.pairing.translated(object_id))}
        for row in rows:
            if _holder(row) == (kind, object_id):
                for name in ("_xact_id", "_pagination_key"):
                    world.pairing.learn(row[name], ours[row["id"]][name])


def _holder(row: Json) -> Tuple[str, str]:
    for kind in ("dataset", "experiment"):
        if row.get(kind + "_id"):
            return kind, row[kind + "_id"]
    return "project_logs", row["project_id"]


def _insert(world: World, rows: List[Json], seconds: int) -> None:
    kind, object_id = _holder(rows[0])
    events = [
        {name: value for name, value in row.items() if name not in SERVER_FIELDS and value != []}
        for row in rows
    ]
    events = json.loads(world.pairing.translated(json.dumps(events)))
    for event in events:
        if event.get("span_parents", 0) is None:
            del event["span_parents"]
    place = world.pairing.translated(object_id)
    world.sandbox.clock.set(seconds)
    world.org.insert(kind, place, events)


# -- replay


def send(world: World, exchange: Exchange) -> requests.Response:
    """Send a recorded request, at its time, with our ids in place of the recorded ones.

    Rows that its answer shows and no recorded request wrote are inserted first.
    """
    rows = _missing_rows(world, [exchange])
    _carry_out(list(_write_rows(world, rows)))
    _learn_rows(world, rows)
    if exchange.status == 403 and exchange.route == "GET /v1/experiment/{id}":
        world.org.delete("experiment", world.pairing.translated(exchange.path.split("/")[-1]))
    world.sandbox.clock.set(exchange.seconds)
    path = world.pairing.translated(exchange.path + _lost_query(exchange))
    body = None
    if exchange.request is not None:
        body = world.pairing.translated(json.dumps(exchange.request)).encode()
    key = "wrong" if exchange.status == 401 else KEY
    headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
    return requests.request(
        exchange.method, world.sandbox.url + path, data=body, headers=headers, timeout=30
    )


def _lost_query(exchange: Exchange) -> str:
    """What a route was asked for, where the query was not recorded."""
    if exchange.path in LOST_QUERIES:
        return LOST_QUERIES[exchange.path]
    lost = exchange.session == QUERY_UNKNOWN and exchange.path in ("/v1/function", "/v1/prompt")
    if not lost:
        return ""
    shown = exchange.response["objects"][0]
    return "?slug={}&version={}".format(shown["slug"], shown["_xact_id"])
