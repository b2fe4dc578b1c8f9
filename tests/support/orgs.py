"""Organizations for tests of whole migrations: filled sandboxes, real processes, and an independent comparison.

Nothing of the migration's own code is used here: what should have arrived is worked out from the sandbox's data alone.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.example import fill as example
from bt_migrate.sandbox.http.server import Incoming, Sandbox

Json = Dict[str, Any]

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SOURCE_KEY, DEST_KEY = "sk-source-5f1c9e", "sk-dest-8ab207"
TIME_LIMIT_S = 120  # of one process; a test that needs it has failed
OUTAGE_LIMIT_S = 300  # of one that sits out what it meets: a host that is gone is waited for

# kind of rows -> (kind of the object that holds them, folder of its checkpoints)
ROWS_OF = {"project_logs": "project", "experiment": "experiment", "dataset": "dataset"}


def events_of(parts: List[str], body: Any) -> List[Tuple[str, Json]]:
    """(object id, event) of an insert into one object, or (POST /v1/insert) into several."""
    together = (
        {item: of["events"] for objects in body.values() for item, of in objects.items()}
        if "events" not in body
        else {}
    )
    return [
        (entry, event)
        for entry, events in (together or {parts[-2]: body["events"]}).items()
        for event in events
    ]


@dataclass
class DataPlane:
    """As which data plane the sandboxes of a test behave; the fixture `data_plane` sets it."""

    older: bool = False


DATA_PLANE = DataPlane()


class WatchedSandbox(Sandbox):
    """A sandbox that remembers which rows were inserted and deleted, and refuses what a test tells it to."""

    def __init__(self) -> None:
        super().__init__(older=DATA_PLANE.older)
        # (object id, row id, is a merge), in order of arrival, refused ones too
        self.inserted: List[Tuple[str, str, bool]] = []
        # (object id, row id), in order of arrival
        self.deleted: List[Tuple[str, str]] = []
        # (object id, row id) of the inserts that were not refused, in order of arrival
        self.sent: List[Tuple[str, str]] = []
        # Called with (method, path, body); an Answer refuses the request.
        self.refuse: Optional[Callable[[str, str, bytes], Optional[Answer]]] = None
        # A query over several objects is answered with the rows of the first only.
        self.only_first_id = False

        self.intercept = self._watch

    def _watch(self, request: Incoming) -> Optional[Answer]:
        refusal = self.refuse(request.method, request.path, request.body) if self.refuse else None
        parts = request.path.split("/")
        if parts[-1] == "insert":  # one step each: other threads insert too
            events = events_of(parts, json.loads(request.body))
            self.deleted.extend(
                (object_id, event["id"])
                for object_id, event in events
                if event.get("_object_delete")
            )
            self.inserted.extend(
                (object_id, event["id"], bool(event.get("_is_merge")))
                for object_id, event in events
                if not event.get("_object_delete")
            )
        if refusal is None and request.method == "POST":
            self.sent.extend(rows_in(request.path, request.body))
        if self.only_first_id and request.path == "/btql":
            request.body = re.sub(rb"(from: \w+\('[^']*')[^)]*\)", rb"\1)", request.body)
        return refusal


def rows_in(path: str, raw: bytes) -> List[Tuple[str, str]]:
    """(object id, row id) of the rows in the body of an insert, comments left out."""
    if path == "/v1/insert":
        parts = [part for objects in json.loads(raw).values() for part in objects.items()]
        return [
            (object_id, row["id"]) for object_id, part in parts for row in part.get("events", ())
        ]
    if path.endswith("/insert"):
        return [(path.split("/")[-2], row["id"]) for row in json.loads(raw)["events"]]
    rows = json.loads(raw)["rows"] if path == "/logs3" else []
    if not isinstance(rows, list):  # uploaded elsewhere
        return []
    return [
        (row.get("experiment_id") or row.get("dataset_id") or row["project_id"], row["id"])
        for row in rows
        if "comment" not in row
    ]


@dataclass(frozen=True)
class Pair:
    """A sandbox with a filled source and an empty destination."""

    sandbox: WatchedSandbox
    source: Any
    dest: Any


@contextlib.contextmanager
def example_pair(rows: int = 600) -> Iterator[Pair]:
    """The example organization, whole and nasty."""
    with WatchedSandbox() as sandbox:
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=example.SOURCE_USERS)
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=example.DEST_USERS)
        example.fill_example(source, rows=rows)
        yield Pair(sandbox, source, dest)


@contextlib.contextmanager
def tiny_pair(*, ago_s: int = 0) -> Iterator[Pair]:
    """A few objects of each kind, 300 log rows, all of it quickly moved. `ago_s`: for servers that live in the past."""
    with WatchedSandbox() as sandbox:
        sandbox.clock.set(sandbox.clock.seconds() - ago_s)
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[{"email": ANA}, {"email": BEN}])
        dest = sandbox.add_org(
            "globex", api_key=DEST_KEY, users=[{"email": "nora@acme.example"}, {"email": ANA}]
        )
        fill_tiny(source)
        yield Pair(sandbox, source, dest)


# -- the tiny organization

ANA, BEN = "ana@acme.example", "ben@acme.example"  # Ben is not in the destination
INLINE = {
    "type": "code",
    "data": {
        "type": "inline",
        "runtime_context": {"runtime": "node", "version": "20"},
        "code": "export default () => 1;\n",
    },
}
BUNDLE = {
    "type": "code",
    "data": {
        "type": "bundle",
        "runtime_context": {"runtime": "node", "version": "20"},
        "bundle_id": "b-1",
        "location": {"type": "function", "index": 0},
    },
}


def fill_tiny(org: Any) -> None:
    users = {user["email"]: user["id"] for user in org.objects("user")}
    engineer = next(role["id"] for role in org.objects("role") if role["name"] == "Engineer")
    alpha = org.create("project", {"name": "Alpha/α", "description": "first"})["id"]
    beta = org.create("project", {"name": "beta"})["id"]
    _fill_organization(org, users, engineer)
    questions = org.create(
        "dataset", {"project_id": alpha, "name": "questions", "metadata": {"n": 2**60 + 1}}
    )["id"]
    answers = org.create("dataset", {"project_id": beta, "name": "answers", "tags": ["x"]})["id"]
    scorer, prompt = _fill_definitions(org, alpha, beta)
    chain = _fill_experiments(org, alpha, beta, questions)
    _fill_rows(org, alpha, beta, (questions, answers), chain, prompt, users)
    _fill_late(org, alpha, beta, scorer, chain, users, questions)


def _fill_organization(org: Any, users: Dict[str, str], engineer: str) -> None:
    org.create("ai_secret", {"name": "OPENAI", "type": "openai", "secret": "never-to-be-read"})
    org.create("environment", {"name": "Production", "slug": "production"})
    inner = org.create("role", {"name": "inner", "member_permissions": [{"permission": "read"}]})[
        "id"
    ]
    org.create("role", {"name": "outer", "member_roles": [inner, engineer]})
    people = org.create("group", {"name": "people", "member_users": [users[ANA], users[BEN]]})["id"]
    org.create("group", {"name": "everybody", "member_groups": [people]})


def _fill_definitions(org: Any, alpha: str, beta: str) -> Tuple[str, str]:
    """(a scorer, a prompt); two functions use each other, so one of them needs a second pass."""
    org.create("project_tag", {"project_id": alpha, "name": "red", "color": "#FF0000"})
    org.create("project_tag", {"project_id": alpha, "name": "blue", "color": "#0000FF"})
    org.create(
        "span_iframe", {"project_id": alpha, "name": "frame", "url": "https://frame.example/{{id}}"}
    )
    server = org.create(
        "mcp_server", {"project_id": beta, "name": "mcp", "url": "https://mcp.example"}
    )["id"]
    org.create("agent", {"project_id": beta, "name": "agent", "metadata": {"k": 1.0}})
    scorer = function(org, alpha, "scorer", INLINE, function_type="scorer")
    function(org, alpha, "bundled", BUNDLE, function_type="tool")
    graph = {"type": "graph", "nodes": {}, "edges": {}}
    first = function(org, alpha, "first", graph)
    second = function(
        org,
        alpha,
        "second",
        {**graph, "nodes": {"n": {"type": "function", "function": {"function_id": first}}}},
    )
    nodes = {"n": {"type": "function", "function": {"function_id": second}}}
    org.patch("function", first, {"function_data": {**graph, "nodes": nodes}})
    data = {
        "prompt": {"type": "completion", "content": "{{q}}"},
        "tool_functions": [{"type": "function", "id": scorer}],
    }
    data["mcp"] = {"m": {"type": "id", "id": server}}
    prompt = org.create(
        "prompt", {"project_id": beta, "name": "Ask", "slug": "ask", "prompt_data": data}
    )["id"]
    return scorer, prompt


def function(org: Any, project_id: str, slug: str, data: Json, **fields: Any) -> str:
    body = {
        "project_id": project_id,
        "name": slug.title(),
        "slug": slug,
        "function_data": data,
        **fields,
    }
    return str(org.create("function", body)["id"])


def _fill_experiments(org: Any, alpha: str, beta: str, dataset: str) -> List[str]:
    """Three experiments, each the base of the next, listed in another order."""
    last = org.create("experiment", {"project_id": beta, "name": "last"})["id"]
    first = org.create(
        "experiment", {"project_id": alpha, "name": "first", "dataset_id": dataset, "public": True}
    )["id"]
    middle = org.create(
        "experiment", {"project_id": alpha, "name": "middle", "base_exp_id": first}
    )["id"]
    org.patch("experiment", last, {"base_exp_id": middle})
    return [first, middle, last]


def _fill_rows(
    org: Any,
    alpha: str,
    beta: str,
    datasets: Sequence[str],
    chain: Sequence[str],
    prompt: str,
    users: Dict[str, str],
) -> None:
    rng = random.Random(11)
    picture = org.attach(
        b"\x89PNG" + bytes(range(256)) * 40, filename="a.png", content_type="image/png"
    )
    notes = org.attach("Notizen: ü".encode(), filename="notes.txt", content_type="text/plain")
    for number, dataset in enumerate(datasets):
        rows = [
            {"id": f"case {i}", "input": {"q": i, "w": -0.0}, "expected": rng.random()}
            for i in range(45)
        ]
        rows[3]["metadata"] = {"file": picture}
        org.insert("dataset", dataset, rows[:30])
        org.insert("dataset", dataset, rows[30 - number :])
    cases = org.rows("dataset", datasets[0])
    for experiment in chain:
        rows = [
            _span(rng, f"e{i}", output={"a": 2**64 + i}, scores={"s": rng.random()})
            for i in range(30)
        ]
        for row, case in zip(rows, cases):
            version = {"id": case["id"], "_xact_id": case["_xact_id"], "created": case["created"]}
            row["origin"] = {"object_type": "dataset", "object_id": datasets[0], **version}
        rows[5]["output"] = [notes, {"again": picture}]
        org.insert("experiment", experiment, rows)
    logged = org.objects("prompt")[-1]
    for project, count in ((alpha, 250), (beta, 50)):
        rows = [
            _span(rng, f"{i:04}", input=f"text {i} \U0001f600", tags=["x"]) for i in range(count)
        ]
        rows[7].update(input={"see": picture}, error="boom", facets={"Task": "t"})
        rows[8]["metadata"] = {
            "prompt": {
                "id": prompt,
                "project_id": beta,
                "version": logged["_xact_id"],
                "variables": {},
            }
        }
        rows[9]["metadata"] = {"~__bt_assignments": [users[ANA], users[BEN]], "which": datasets[1]}
        rows[10]["input"] = {
            "an id that is text": f"in {alpha}",
            "lone": "\ud83d",
            "nulls": [None, {"a": None}],
        }
        for start in range(0, count, 40):
            org.insert("project_logs", project, rows[start : start + 40])


def _span(rng: random.Random, row_id: str, **fields: Any) -> Json:
    created = f"2025-10-{rng.randrange(1, 29):02}T08:30:00.{rng.randrange(1000):03}Z"
    begins = 1.7e9 + rng.random()
    row = {
        "id": row_id,
        "span_id": "s" + row_id,
        "root_span_id": "s" + row_id,
        "span_parents": [],
        "created": created,
    }
    return {
        **row,
        "metrics": {"start": begins, "end": begins + 1},
        "span_attributes": {"name": "n", "type": "llm"},
        **fields,
    }


def _fill_late(
    org: Any,
    alpha: str,
    beta: str,
    scorer: str,
    chain: Sequence[str],
    users: Dict[str, str],
    dataset: str,
) -> None:
    """What comes after the data: references to experiments, what reacts to data, views, ACLs."""
    group = org.objects("group")[0]["id"]
    role = next(obj["id"] for obj in org.objects("role") if obj["name"] == "outer")
    origin = {"object_type": "experiment", "object_id": chain[0], "internal": True}
    function(org, beta, "made-from", INLINE, function_type="scorer", origin=origin)
    shown = {"visibility": {"users": [users[BEN], users[ANA]], "groups": [group]}}
    org.create(
        "project_score",
        {"project_id": alpha, "name": "Rating", "score_type": "slider", "config": shown},
    )
    online = {"online": {"sampling_rate": 0.5, "scorers": [{"type": "function", "id": scorer}]}}
    org.create(
        "project_score",
        {"project_id": alpha, "name": "Online", "score_type": "online", "config": online},
    )
    alert = {
        "event_type": "logs",
        "btql_filter": "true",
        "interval_seconds": 60,
        "action": {"type": "webhook", "url": "https://hook.example"},
    }
    org.create("project_automation", {"project_id": beta, "name": "Alert", "config": alert})
    org.patch(
        "project",
        alpha,
        {"settings": {"comparison_key": "input", "baseline_experiment_id": chain[1]}},
    )
    owner = {"object_type": "project", "object_id": alpha}
    org.create("view", {**owner, "view_type": "logs", "name": "mine", "user_id": users[BEN]})
    options = {"viewType": "monitor", "options": {"projectId": beta}}
    org.create("view", {**owner, "view_type": "monitor", "name": "costs", "options": options})
    org.create(
        "view",
        {
            "object_type": "experiment",
            "object_id": chain[0],
            "view_type": "experiment",
            "name": "costs",
        },
    )
    for object_type, object_id, view_type in (
        ("project_log", beta, "logs"),
        ("org_project", org.id, "projects"),
        ("organization", org.id, "projects"),
    ):
        org.create(
            "view",
            {
                "object_type": object_type,
                "object_id": object_id,
                "view_type": view_type,
                "name": f"on {object_type}",
            },
        )
    org.create("acl", {**owner, "group_id": group, "permission": "read"})
    org.create("acl", {**owner, "user_id": users[BEN], "permission": "update"})
    org.create(
        "acl",
        {"object_type": "dataset", "object_id": dataset, "user_id": users[ANA], "role_id": role},
    )
    org.create(
        "acl",
        {
            "object_type": "organization",
            "object_id": org.id,
            "group_id": group,
            "permission": "read",
        },
    )


def everything(org: Any) -> Dict[str, Any]:
    """Id -> content of every object, and kind and id -> rows and comments of those that have rows."""
    found = {obj["id"]: obj for kind in KINDS for obj in org.objects(kind)}
    for kind, holder in ROWS_OF.items():
        for item in org.objects(holder):
            found[kind + item["id"]] = [org.rows(kind, item["id"]), org.comments(kind, item["id"])]
    return found


# -- programs


@dataclass(frozen=True)
class Ended:
    """How a process ended. A killed one has the negative number of the signal as its code."""

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        return "\n".join(self.err.splitlines()[-6:])


def environment(sandbox: Any, **settings: str) -> Dict[str, str]:
    """What a process gets to see: nothing of the person who runs the tests but where Python is."""
    env = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "TMPDIR", "PYTHONPYCACHEPREFIX")
        if name in os.environ
    }
    env.update(PYTHONPATH=str(REPOSITORY), PYTHONIOENCODING="utf-8", LANG="C.UTF-8")
    env.update(
        BT_SOURCE_URL=sandbox.url,
        BT_DEST_URL=sandbox.url,
        BT_SOURCE_API_KEY=SOURCE_KEY,
        BT_DEST_API_KEY=DEST_KEY,
    )
    env.update(MIGRATION_RETRY_DELAY="0.05")
    return {name: value for name, value in {**env, **settings}.items() if value}


@contextlib.contextmanager
def started(
    sandbox: Any, root: Path, *args: str, program: str = "migrate_all", **settings: str
) -> Iterator[subprocess.Popen[str]]:
    """The real process, with `root` as its folder of runs; gone at the end whatever happened.

    Without its own comparison of both sides, which waits for rows that do not come; `--verify` among `args` keeps it.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    compares = ["--no-verify"] if program == "migrate_all" and "--verify" not in args else []
    given = [argument for argument in args if argument != "--verify"]
    command = [
        sys.executable,
        "-m",
        f"bt_migrate.phases.{program}",
        "--state-dir",
        str(root),
        *compares,
        *given,
    ]
    env = environment(sandbox, **settings)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command,
        env=env,
        cwd=root.parent,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], limit_s: float = TIME_LIMIT_S) -> Ended:
    out, err = process.communicate(timeout=limit_s)
    return Ended(process.returncode, out, err)


def run(
    sandbox: Any, root: Path, *args: str, program: str = "migrate_all", **settings: str
) -> Ended:
    """Run a program to its end."""
    with started(sandbox, root, *args, program=program, **settings) as process:
        return ended(process)


class AtRequest:
    """Set as `sandbox.on_request`: does something once, at the n-th request that matches, before or after it is carried out.

    With a signal number as `act` the process gets that signal; SIGKILL also ends the request there and then, so that
    "before" means that it is never carried out. Anything else is called.
    """

    def __init__(
        self,
        at: int,
        moment: str,
        act: Any,
        matches: Callable[[str, str], bool] = lambda method, path: True,
    ) -> None:
        self.at, self.moment, self.act, self.matches = at, moment, act, matches
        self.process: Optional[subprocess.Popen[str]] = None
        self.done = threading.Event()
        self._lock = threading.Lock()
        self._met = 0

    def __call__(self, number: int, moment: str, method: str, path: str) -> None:
        with self._lock:
            if moment != self.moment or self.done.is_set() or not self.matches(method, path):
                return
            self._met += 1
            if self._met != self.at:
                return
            self.done.set()
        if callable(self.act):
            self.act()
            return
        assert self.process is not None
        self.process.send_signal(self.act)
        if self.act == signal.SIGKILL:
            raise ConnectionResetError("the client was killed")


def run_with(pair: Pair, root: Path, at: AtRequest, *args: str, **settings: str) -> Ended:
    """Run migrate-all with `at` as what happens at a request."""
    with started(pair.sandbox, root, *args, **settings) as process:
        at.process = process
        pair.sandbox.on_request = at
        try:
            return ended(process, OUTAGE_LIMIT_S)
        finally:
            pair.sandbox.on_request = None


def runs(root: Path) -> List[Path]:
    """Run directories, oldest first."""
    return sorted(path.parent for path in root.glob("*/run.json"))


def most_in_flight(requests: Iterable[Any]) -> int:
    """How many requests were being served at the same moment."""
    changes = sorted(
        change for request in requests for change in ((request.started, 1), (request.finished, -1))
    )
    return max(itertools.accumulate(change for _, change in changes))


def report(root: Path) -> Json:
    """The report of the newest run."""
    value: Json = json.loads((runs(root)[-1] / "migration_report.json").read_text(encoding="utf-8"))
    return value


def findings(root: Path, kind: str) -> List[Json]:
    return [finding for finding in report(root)["findings"] if finding["kind"] == kind]
