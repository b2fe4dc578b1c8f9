"""A small changing organization, and syncs of it with the real program."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from tests.support.orgs import DEST_KEY, ROWS_OF, SOURCE_KEY, Ended, WatchedSandbox, runs
from tests.support.row_runs import READ, WRITE, Json, World, call, content

LOGS, EXPERIMENT, DATASET = "project_logs", "experiment", "dataset"
KINDS = (LOGS, EXPERIMENT, DATASET)
YEAR_S = 365 * 86400


@contextlib.contextmanager
def living(folder: Path, projects: int = 1, rows: int = 30) -> Iterator[World]:
    """A source of `projects` projects with logs, an experiment and a dataset; old rows."""
    with WatchedSandbox() as sandbox:
        sandbox.clock.set(
            sandbox.clock.seconds() - YEAR_S
        )  # days pass in a test, and no server is ahead of everybody else's clock
        source, dest = (
            sandbox.add_org(READ, api_key=SOURCE_KEY),
            sandbox.add_org(WRITE, api_key=DEST_KEY),
        )
        old = int(sandbox.clock.seconds()) - YEAR_S
        for number in range(projects):
            project = str(source.create("project", {"name": f"p{number:02}"})["id"])
            for kind in KINDS:
                holder = (
                    project
                    if kind == LOGS
                    else source.create(
                        kind, {"project_id": project, "name": f"{kind} {number:02}"}
                    )["id"]
                )
                events = [
                    {"id": f"r{row:05}", "input": {"n": row}, "metadata": {"of": number}}
                    for row in range(rows)
                ]
                for start in range(0, rows, 10):
                    source.insert(kind, holder, events[start : start + 10], at=old + number)
        yield World(sandbox, source, dest, str(source.objects("project")[0]["id"]), folder / "runs")


def holder(w: World, kind: str, number: int = 0) -> str:
    """The source object that has rows of the kind, of one project."""
    return str(w.source.objects(ROWS_OF[kind])[number]["id"])


def twin(w: World, kind: str, number: int = 0) -> str:
    return w.twin(kind, holder(w, kind, number))


def sync(
    w: World, *args: str, program: str = "migrate_all", after_s: int = 3600, **settings: str
) -> Ended:
    """A first copy, or what is new since the last one; in this process, an hour later."""
    later(w, after_s)
    out, err = io.StringIO(), io.StringIO()
    compares = (
        ["--no-verify"]
        if program == "migrate_all" and not {"--full", "--counts", "--sample"} & set(args)
        else []
    )
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = call(w, program, "--since-last", *compares, *args, **settings)
        except SystemExit as error:
            code = int(error.code or 0)
    return Ended(code, out.getvalue(), err.getvalue() or out.getvalue())


def add_prompt(w: World) -> None:
    """Create the prompt `ask` in the source."""
    data = {"prompt": {"type": "completion", "content": "{{q}}"}}
    body = {"project_id": w.project, "name": "Ask", "slug": "ask", "prompt_data": data}
    w.source.create("prompt", body)


def first_sync(w: World) -> None:
    """Copy everything, and forget what was sent by that."""
    first = sync(w)
    assert (first.code, equal(w)) == (0, True), first.last_words
    sent(w)


def later(w: World, seconds: int = 86400) -> None:
    """Time passes on both servers."""
    w.sandbox.clock.set(w.sandbox.clock.seconds() + seconds)


def equal(w: World) -> bool:
    """Whether all objects of the same name hold the same rows on both sides."""
    return held(w.source) == held(w.dest)


def held(org: Any) -> Dict[Tuple[str, str, str], List[str]]:
    """(kind, project, name) -> contents of its rows."""
    names = {obj["id"]: obj["name"] for obj in org.objects("project")}
    found = {}
    for kind, kind_of_holder in ROWS_OF.items():
        for item in org.objects(kind_of_holder):
            found[kind, names[item.get("project_id") or item["id"]], item["name"]] = content(
                org, kind, item["id"]
            )
    return found


def sent(w: World) -> List[Tuple[str, str]]:
    """(object, row) of all rows that were inserted since this was asked last, comments left out."""
    rows, w.sandbox.sent = w.sandbox.sent, []
    return rows


def files(path: Path) -> Dict[str, bytes]:
    """Path of each file of a run -> its content."""
    return {str(entry): entry.read_bytes() for entry in path.rglob("*") if entry.is_file()}


def marks(w: World) -> Dict[str, Dict[str, int]]:
    data: Json = json.loads((runs(w.root)[-1] / "run.json").read_text(encoding="utf-8"))
    return dict(data.get("marks", {}))


def queries(w: World, org_name: str) -> int:
    return sum(
        request.path == "/btql" and request.org_name == org_name for request in w.sandbox.requests
    )


def row(row_id: str, **fields: Any) -> Json:
    return {"id": row_id, "input": {"n": row_id}, **fields}


def merge(org: Any, kind: str, object_id: str, events: Sequence[Json]) -> None:
    """Fields are added to rows, as feedback and late scores are."""
    org.insert(kind, object_id, [{**event, "_is_merge": True} for event in events])
