"""Sends recorded requests to a sandbox, and compares its answers with the recorded ones.

Ids, transactions, keys and cursors differ between the two. A `Pairing` learns which value of the sandbox belongs to
which recorded value, refuses a second partner, and requires the same order of transactions and of keys.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Collection, Dict, Iterator, List, Mapping, Tuple

import requests

from bt_migrate.sandbox.data.clock import micros
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg

Json = Dict[str, Any]

FILE = Path(__file__).resolve().parent.parent / "recorded" / "exchanges.jsonl"
KEY = "sk-replay"

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TRANSACTION = re.compile(r"1000\d{15}")
ROW_KEY = re.compile(r"p\d{20}")
NO_ID = "00000000-0000-0000-0000-000000000000"
# How far a time of the sandbox may be from the recorded one; a session takes some seconds.
MAX_SECONDS_APART = 10

# Names of projects that the recordings mention by id only, or by name only.
PROJECT_NAMES = {
    "c532bc50-7094-4bbb-8704-42344c9728b9": "ruby-sdk-test",
    "ac86d18e-af78-4caf-918d-b89ad108ec67": "ruby-sdk-test",
    "842c2063-b9c7-4c40-9fb9-fa95f810c57f": "go-sdk-tests",
    "f1e858a4-58e3-408f-983f-016760d7fa25": "java-unit-test",
    "be859ba0-1274-4df9-8261-68b52806558c": "python datasets",
    "0e748405-dc34-448d-8fba-effd90756d75": "simple-math-eval",
}
HEADERS = ("x-bt-found-existing", "x-bt-cursor", "retry-after")


@dataclass(frozen=True)
class Exchange:
    """One recorded request and its answer."""

    session: str
    date: str
    method: str
    path: str
    request: Any
    status: int
    headers: Mapping[str, str]
    response: Any
    cut: bool = False  # the last items of lists are left out

    @property
    def seconds(self) -> float:
        return (micros(self.date) or 0) / 1e6

    @property
    def route(self) -> str:
        return "{} {}".format(self.method, UUID.sub("{id}", self.path.split("?")[0]))

    @property
    def is_jsonl(self) -> bool:
        return isinstance(self.request, dict) and self.request.get("fmt") == "jsonl"

    def rows(self) -> List[Json]:
        """The rows of the answer of a query or of /fetch."""
        if self.is_jsonl:
            return jsonl(self.response)
        if not isinstance(self.response, dict):
            return []
        return list(self.response.get("data") or self.response.get("events") or [])


def jsonl(value: Any) -> List[Json]:
    """The rows of a text of lines, or of its only line as a value."""
    if isinstance(value, dict):
        return [value]
    return [json.loads(line) for line in value.splitlines()]


def sessions() -> Dict[str, List[Exchange]]:
    """Returns the exchanges of each session, in order."""
    found: Dict[str, List[Exchange]] = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        exchange = Exchange(**json.loads(line))
        found.setdefault(exchange.session, []).append(exchange)
    return found


class Pairing:
    """Which value of the sandbox stands where the recording has another one."""

    def __init__(self) -> None:
        self._ours: Dict[str, str] = {}
        self._theirs: Dict[str, str] = {}

    def learn(self, recorded: str, ours: str) -> bool:
        """Remember a pair; False where one of the two has another partner."""
        known = self._ours.setdefault(recorded, ours)
        back = self._theirs.setdefault(ours, recorded)
        return (known, back) == (ours, recorded)

    def knows(self, recorded: str) -> bool:
        return recorded in self._ours

    def translated(self, text: str) -> str:
        """A recorded text with our values in place of the recorded ones."""
        for recorded, ours in self._ours.items():
            text = text.replace(recorded, ours)
        return text

    def misordered(self) -> List[str]:
        """Transactions and keys whose order is not that of the recorded ones."""
        problems = []
        for pattern in (TRANSACTION, ROW_KEY):
            pairs = sorted((a, b) for a, b in self._ours.items() if pattern.fullmatch(a))
            ours = [b for _, b in pairs]
            if ours != sorted(ours):
                problems.append(f"{pattern.pattern} are in another order")
        return problems


# -- set up


@dataclass
class World:
    """A sandbox with what the recorded organization held before a session."""

    sandbox: Sandbox
    org: SandboxOrg
    pairing: Pairing


def prepare(sandbox: Sandbox, exchanges: List[Exchange]) -> World:
    """Make what the answers of a session show to have been there before, in an organization of its own."""
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
    "/api/base_experiment": "",
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
    """The inserts of these rows in their transactions; rows that were edited since are written twice."""
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
    """The version that a list of functions was asked for, where the query was not recorded."""
    lost = exchange.session == QUERY_UNKNOWN and exchange.path in ("/v1/function", "/v1/prompt")
    if not lost:
        return ""
    shown = exchange.response["objects"][0]
    return "?slug={}&version={}".format(shown["slug"], shown["_xact_id"])


def differences(world: World, exchange: Exchange, answer: requests.Response) -> List[str]:
    """What is not as recorded: status, headers, keys, types, values, and relations between ids and times."""
    if answer.status_code != exchange.status:
        return ["status %d: %s" % (answer.status_code, answer.text[:300])]
    found = []
    for name in HEADERS:
        if (name in exchange.headers) != (name in answer.headers):
            found.append(f"header {name}: {answer.headers.get(name)}")
        elif name == "x-bt-cursor" and name in exchange.headers:
            world.pairing.learn(exchange.headers[name], answer.headers[name])
    if answer.headers["Content-Type"] != exchange.headers["content-type"]:
        found.append("content-type: " + answer.headers["Content-Type"])
    found += _cursor_problems(exchange, answer)
    found += _compared(world, exchange, answer)
    return found


def _compared(world: World, exchange: Exchange, answer: requests.Response) -> List[str]:
    comparison = Comparison(world.pairing, exchange)
    if exchange.is_jsonl:
        comparison.compare(jsonl(exchange.response), jsonl(answer.text), "")
    elif "json" in exchange.headers["content-type"]:
        comparison.compare(exchange.response, answer.json(), "")
    else:
        comparison.compare_text(exchange.response, answer.text)
    return comparison.problems


def _cursor_problems(exchange: Exchange, answer: requests.Response) -> List[str]:
    """A cursor is the unpadded base64 of the 8 bytes of the last row's key, in body and header."""
    problems = []
    theirs = [] if exchange.cut else exchange.rows()
    for rows, headers, who in (
        (theirs, exchange.headers, "recorded"),
        (_rows_of(exchange, answer), answer.headers, "ours"),
    ):
        cursor = headers.get("x-bt-cursor")
        if cursor is None or not rows or "_pagination_key" not in rows[-1]:
            continue
        raw = int(rows[-1]["_pagination_key"][1:]).to_bytes(8, "big")
        if cursor != base64.b64encode(raw).decode().rstrip("="):
            problems.append(f"{who} cursor {cursor} is not the last key")
    return problems


def _rows_of(exchange: Exchange, answer: requests.Response) -> List[Json]:
    if exchange.is_jsonl:
        return jsonl(answer.text)
    if "json" not in answer.headers["Content-Type"]:
        return []
    value = answer.json()
    return list(value.get("data") or value.get("events") or []) if isinstance(value, dict) else []


# Fields that the service has added since some of the recordings were made.
ADDED_LATER = frozenset(
    # rows of 2026
    "audit_data classifications comments facets "
    # answers of queries of 2026
    "warnings "
    # projects, datasets and experiments of 2026
    "description url_slug tags internal_metadata parameters_id parameters_version".split()
)
# The queries of its lists were not recorded: only the objects that are shown are compared.
QUERY_UNKNOWN = "java"
# Their values are not compared: addresses, texts, trace ids, settings of the organization, and the newest
# transaction of an object of which not all rows are shown.
FREE_VALUES = frozenset(
    "read_bytes schema message InternalTraceId api_url proxy_url realtime_url git_metadata "
    "is_universal_api minimum_xact_id actual_xact_id last_processed_xact_id "
    "last_considered_xact_id".split()
)


class Comparison:
    """Compares one answer; `problems` names what is not as recorded."""

    def __init__(self, pairing: Pairing, exchange: Exchange) -> None:
        self.pairing = pairing
        self.exchange = exchange
        self.problems: List[str] = []

    def compare(self, recorded: Any, ours: Any, path: str) -> None:
        if isinstance(recorded, dict) and isinstance(ours, dict):
            self._compare_objects(recorded, ours, path)
        elif isinstance(recorded, list) and isinstance(ours, list):
            self._compare_lists(recorded, ours, path)
        elif isinstance(recorded, str) and isinstance(ours, str):
            self._compare_texts(recorded, ours, path)
        elif type(recorded) is not type(ours) or recorded != ours:
            self._differs(path, recorded, ours)

    def _compare_objects(self, recorded: Json, ours: Json, path: str) -> None:
        missing = sorted(set(recorded) - set(ours))
        added = sorted(set(ours) - set(recorded) - ADDED_LATER)
        if missing or added:
            self.problems.append("{}: misses {}, has {}".format(path or "/", missing, added))
        for name in set(recorded) & set(ours):
            if name not in FREE_VALUES:
                self.compare(recorded[name], ours[name], path + "/" + name)

    def _compare_lists(self, recorded: List[Any], ours: List[Any], path: str) -> None:
        if path == "/objects" and self.exchange.session == QUERY_UNKNOWN:
            shown = [self.pairing.translated(value["id"]) for value in recorded]
            ours = [value for value in ours if value["id"] in shown]
        if len(ours) < len(recorded) or (len(ours) > len(recorded) and not self.exchange.cut):
            self.problems.append("%s: %d items, not %d" % (path, len(ours), len(recorded)))
        for number, (left, right) in enumerate(zip(recorded, ours)):
            self.compare(left, right, "%s/%d" % (path, number))

    def _compare_texts(self, recorded: str, ours: str, path: str) -> None:
        name = path.rsplit("/", 1)[-1]
        if name == "user_id":  # the caller of a session is not the same person everywhere
            self._equal(
                str(UUID.fullmatch(recorded) is None), str(UUID.fullmatch(ours) is None), path
            )
        elif any(pattern.fullmatch(recorded) for pattern in (UUID, TRANSACTION, ROW_KEY)):
            same_form = any(
                pattern.fullmatch(recorded) and pattern.fullmatch(ours)
                for pattern in (UUID, TRANSACTION, ROW_KEY)
            )
            if not same_form or not self.pairing.learn(recorded, ours):
                self._differs(path, recorded, ours)
        elif name == "cursor":
            self.pairing.learn(recorded, ours)
        elif micros(recorded) is not None and len(recorded) > 10:
            apart = abs((micros(recorded) or 0) - (micros(ours) or 0)) / 1e6
            if apart > MAX_SECONDS_APART:
                self._differs(path, recorded, ours)
        elif " [user_email=" in recorded:
            self.compare_text(recorded, ours)
        elif name == "Path":
            self._equal(self.pairing.translated(recorded), ours, path)
        else:
            self._equal(self._generated(recorded, ours, name), ours, path)

    def _generated(self, recorded: str, ours: str, name: str) -> str:
        """A name with a random suffix, given to an experiment whose name was taken, with our suffix."""
        request = self.exchange.request
        if name == "name" and isinstance(request, dict) and request.get("ensure_new"):
            suffix = re.compile("-[0-9a-f]{8}$")
            if suffix.search(recorded) and suffix.search(ours):
                return recorded[:-8] + ours[-8:]
        return self.pairing.translated(recorded)

    def compare_text(self, recorded: str, ours: str) -> None:
        """Texts with the caller in brackets behind them: the same text, the same brackets."""
        plain = [re.sub(r" \[\w+=.*", "", text, flags=re.DOTALL) for text in (recorded, ours)]
        brackets = [re.findall(r"\[(\w+)=", text) for text in (recorded, ours)]
        self._equal(self.pairing.translated(plain[0]), plain[1], "text")
        if brackets[0] != brackets[1]:
            self._differs("brackets", brackets[0], brackets[1])

    def _equal(self, recorded: str, ours: str, path: str) -> None:
        if recorded != ours:
            self._differs(path, recorded, ours)

    def _differs(self, path: str, recorded: Any, ours: Any) -> None:
        self.problems.append(f"{path}: {ours!r}, not {recorded!r}")
