"""`--plan` carries out exactly what a dry run has planned, or writes nothing and says why."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
from pathlib import Path
from typing import Iterator

import pytest

from bt_migrate.errors import UsageError
from bt_migrate.report.plan_check import plan_changes, read_plan
from tests.support.compare_orgs import differences
from tests.support.orgs import AtRequest, Json, Pair, is_insert, run, run_with, runs, tiny_pair


@pytest.fixture
def planned(tmp_path: Path) -> Iterator[Pair]:
    with tiny_pair() as pair:
        arguments = ("--dry-run", "--plan-out", str(tmp_path / "plan.json"))
        assert run(pair.sandbox, tmp_path / "runs", *arguments).code == 0
        yield pair


def test_a_plan_that_holds_is_carried_out_also_after_a_kill(planned: Pair, tmp_path: Path) -> None:
    root, plan = tmp_path / "runs", ("--plan", str(tmp_path / "plan.json"))
    killed = run_with(
        planned, root, AtRequest(3, "after", signal.SIGKILL, lambda _, path: is_insert(path)), *plan
    )
    assert killed.code == -signal.SIGKILL
    assert killed.err.count("starting run") == 1, killed.err
    made = len(runs(root))
    done = run(planned.sandbox, root, *plan)
    assert (done.code, differences(planned), len(runs(root))) == (0, [], made), done.last_words


def test_a_plan_that_no_longer_holds_writes_nothing_and_says_why(
    planned: Pair, tmp_path: Path
) -> None:
    project = planned.source.objects("project")[0]
    planned.source.create("dataset", {"project_id": project["id"], "name": "late"})
    planned.source.insert("project_logs", project["id"], [{"id": "late"}])
    planned.dest.create("project", {"name": project["name"]})
    before = planned.sandbox.writes("globex")
    done = run(planned.sandbox, tmp_path / "runs", "--plan", str(tmp_path / "plan.json"))
    place = f"{project['name']!r}"
    assert (done.code, planned.sandbox.writes("globex")) == (2, before), done.last_words
    for change in (
        f"projects {place}: create, now differs",
        f"datasets 'late' of {place}: not planned, now create",
        f"rows of logs {place} of {place}: 250 rows, 0 there, now 251 rows, 0 there",
    ):
        assert change in done.err, done.err


def test_the_plan_of_a_source_that_is_written_to_can_be_made_again_to_hold(
    planned: Pair, tmp_path: Path
) -> None:
    root, plan = tmp_path / "runs", str(tmp_path / "plan.json")
    project = planned.source.objects("project")[0]["id"]
    planned.source.insert("project_logs", project, [{"id": "late"}])
    # The new plan leaves out what was created in the second in which it is recommended.
    time.sleep(1)
    refused = run(planned.sandbox, root, "--plan", plan)
    assert refused.code == 2, refused.last_words
    (command,) = re.findall(r"New plan: bin/migrate-all (.*?)  #", refused.err)
    planned.sandbox.clock.set(planned.sandbox.clock.seconds() + 3600)
    arguments = without_state_dir(shlex.split(command))
    again = run(planned.sandbox, root, *arguments)
    assert again.code == 0, again.out + again.err
    planned.source.insert("project_logs", project, [{"id": "later"}])
    window = arguments[arguments.index("--created-before") :]
    done = run(planned.sandbox, root, "--plan", plan, *window)
    assert done.code == 0, done.last_words
    copied = {row["id"] for row in planned.dest.rows("project_logs", twin_of(planned, project))}
    assert copied and "later" not in copied


def without_state_dir(arguments: list) -> list:
    place = arguments.index("--state-dir")
    return arguments[:place] + arguments[place + 2 :]


def twin_of(pair: Pair, project: str) -> str:
    names = {item["id"]: item["name"] for item in pair.source.objects("project")}
    return next(
        str(item["id"]) for item in pair.dest.objects("project") if item["name"] == names[project]
    )


def plan_of(**changes: object) -> Json:
    sides = {
        "source": {"org_id": "s"},
        "destination": {"org_id": "d"},
        "selection": {"projects": []},
    }
    lists: Json = {"objects": [], "streams": [], "losses": []}
    return {"plan_version": 1, **sides, **lists, **changes}


PROMPT = {
    "resource": "prompts", "project": "P", "id": "1", "name": "x", "action": "update", "reason": "",
    "fields": ["prompt_data"],
}  # fmt: skip
ROWS = {
    "kind": "logs",
    "objects": [{"project": "P", "id": "1", "name": "P", "rows": 5, "rows_there": 0}],
}
LOSS = {"kind": "not_readable", "resource": "functions", "project": "P", "name": "f"}


@pytest.mark.parametrize(
    ("wanted", "today", "expected"),
    [
        ({}, {}, []),
        ({"objects": [PROMPT]}, {"objects": [PROMPT], "estimate": 7}, []),
        (
            {"objects": [PROMPT]},
            {"objects": [{**PROMPT, "fields": []}]},
            ["prompts 'x' of 'P': update (prompt_data), now update"],
        ),
        ({"objects": [PROMPT]}, {}, ["prompts 'x' of 'P': update (prompt_data), now not there"]),
        ({}, {"streams": [ROWS]}, ["rows of logs 'P' of 'P': not planned, now 5 rows, 0 there"]),
        ({}, {"losses": [LOSS]}, ["loss not_readable of functions 'f': not planned, now 1 times"]),
        (
            {},
            {"selection": {"projects": ["P"]}},
            ["selection is projects ['P'] instead of []"],
        ),
    ],
)
def test_what_changed_since_a_plan_is_named(wanted: Json, today: Json, expected: list) -> None:
    assert list(plan_changes(plan_of(**wanted), plan_of(**today))) == expected


@pytest.mark.parametrize(
    "text", ["", "{", "[]", json.dumps(plan_of(plan_version=9)), json.dumps(plan_of(objects=[7]))]
)
def test_a_file_that_is_no_plan_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    if text:
        path.write_text(text)
    with pytest.raises(UsageError, match=f"--plan: {path}"):
        read_plan(path)
