"""The command that a program recommends is run next, and leads to exit code 0."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from typing import Any, List, Optional, Tuple

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.http.faults import Fault
from tests.support.compare_orgs import differences
from tests.support.orgs import (
    AtRequest,
    Ended,
    Pair,
    ended,
    environment,
    is_insert,
    report,
    run,
    run_with,
    runs,
    start,
)

NODE = {"runtime": "node", "version": "20"}
SWAPPED = (("one", "two"), ("two", "one"))  # (new name, description of the object that has it)


def next_of(end: Ended) -> Tuple[str, List[str]]:
    """Returns program and arguments of the last line of a program."""
    last = end.out.splitlines()[-1]
    assert last.startswith("Next: bin/"), end.out
    program, *arguments = shlex.split(last[len("Next: bin/") :], comments=True)
    return program.replace("-", "_"), arguments


def run_next(pair: Pair, end: Ended, root: Path) -> Ended:
    program, arguments = next_of(end)
    verifies = ["--verify"] if program == "migrate_all" else []
    arguments = [word for word in arguments if word != "--no-verify"]
    return run(pair.sandbox, root, *arguments, *verifies, program=program)


def refuse_logs_of(project: str) -> Any:
    """Every query of the log rows of a project is refused for good."""

    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        if path.startswith("/btql") and b"project_logs" in raw and project.encode() in raw:
            return Answer(400, b"no such thing")
        return None

    return refuse


def test_objects_that_differ_are_overwritten_by_the_next_command(
    pair: Pair, tmp_path: Path
) -> None:
    beta = pair.dest.create("project", {"name": "beta"})["id"]
    data = {"prompt": {"type": "completion", "content": "?"}}
    fields = {"project_id": beta, "name": "Ask", "slug": "ask", "prompt_data": data}
    pair.dest.create("prompt", fields)
    first = run(pair.sandbox, tmp_path / "runs", "--verify")
    assert (first.code, "prompts=update" in first.out.splitlines()[-1]) == (1, True), first.out
    second = run_next(pair, first, tmp_path / "runs")
    assert (second.code, differences(pair)) == (0, []), second.out


def test_an_object_that_failed_is_created_in_the_same_run_without_reading_rows_again(
    pair: Pair, tmp_path: Path
) -> None:
    pair.sandbox.faults.add(
        Fault("status", "globex", "POST", path="^/v1/project_tag", times=1, status=400, body="no")
    )
    first = run(pair.sandbox, tmp_path / "runs", "--verify")
    assert (first.code, report(tmp_path / "runs")["status"]) == (1, "incomplete"), first.out
    before = len(pair.sandbox.inserted)
    second = run_next(pair, first, tmp_path / "runs")
    assert (second.code, len(runs(tmp_path / "runs"))) == (0, 1), second.out
    assert (pair.sandbox.inserted[before:], differences(pair)) == ([], [])


@pytest.mark.parametrize("times", [7, None])
@pytest.mark.variants(1)
def test_what_belongs_to_a_project_that_failed_is_moved_by_the_next_command(
    times: Optional[int], pair: Pair, tmp_path: Path
) -> None:
    refused = Fault("status", "globex", "POST", path="^/v1/project$", times=times, status=400)
    pair.sandbox.faults.add(refused)
    first = run(pair.sandbox, tmp_path / "runs", "--verify")
    assert (first.code, len(pair.dest.objects("dataset"))) == (1, 0), first.out
    pair.sandbox.faults.clear()
    second = run_next(pair, first, tmp_path / "runs")
    assert (second.code, differences(pair)) == (0, []), second.out


def test_rows_that_stopped_early_are_completed_and_compared_as_they_are_now(
    pair: Pair, tmp_path: Path
) -> None:
    beta = pair.source.objects("project")[1]["id"]
    pair.sandbox.refuse = refuse_logs_of(beta)
    first = run(pair.sandbox, tmp_path / "runs", "--verify")
    assert first.code == 1, first.out
    old = report(tmp_path / "runs")["verification"]
    pair.sandbox.refuse = None
    second = run_next(pair, first, tmp_path / "runs")
    told = report(tmp_path / "runs")
    assert (second.code, told["verification"]["equal"], len(runs(tmp_path / "runs"))) == (
        0,
        True,
        1,
    ), second.out
    assert (old or {}).get("at") != told["verification"]["at"]
    assert "NOT EQUAL" not in second.out


def test_an_interrupted_run_never_shows_an_old_verification(pair: Pair, tmp_path: Path) -> None:
    beta = pair.source.objects("project")[1]["id"]
    pair.sandbox.refuse = refuse_logs_of(beta)
    run(pair.sandbox, tmp_path / "runs", "--verify")
    pair.sandbox.refuse = None
    stop = AtRequest(1, "before", signal.SIGTERM, lambda _, path: is_insert(path))
    second = run_with(pair, tmp_path / "runs", stop, "--verify")
    assert second.code not in (0, 1), second.out
    told = report(tmp_path / "runs")
    assert (told["verification"], "EQUAL" in second.out) == (None, False)
    # The phase that was interrupted has its time.
    assert "migrate-logs" in told["this_start"]["phases"]


@pytest.mark.long
def test_a_verification_that_is_not_equal_names_the_command_that_repairs_it(
    pair: Pair, tmp_path: Path
) -> None:
    first = run(pair.sandbox, tmp_path / "runs", "--projects", "Alpha/α,beta")
    assert first.code == 0, first.out
    dataset = next(obj for obj in pair.dest.objects("dataset") if obj["name"] == "answers")
    rows = pair.dest.rows("dataset", dataset["id"])
    pair.dest.insert("dataset", dataset["id"], [{"id": rows[0]["id"], "_object_delete": True}])
    verified = run_next(pair, first, tmp_path / "runs")
    assert (verified.code, "NOT EQUAL" in verified.out) == (1, True), verified.out
    repaired = run_next(pair, verified, tmp_path / "runs")
    assert repaired.code == 0, repaired.out
    assert run_next(pair, repaired, tmp_path / "runs").code == 0


def test_a_row_that_the_source_changed_is_copied_by_the_command_that_verify_recommends(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    run(pair.sandbox, root, "--verify")
    pair.sandbox.clock.set(pair.sandbox.clock.seconds() + 60)
    dataset = pair.source.objects("dataset")[0]["id"]
    row_id = pair.source.rows("dataset", dataset)[0]["id"]
    pair.source.insert("dataset", dataset, [{"id": row_id, "input": "later"}])
    compared = run(pair.sandbox, root, "--full", program="verify")
    assert (compared.code, next_of(compared)[1][-1]) == (1, "--since-last"), compared.out
    copied = run_next(pair, compared, root)
    assert (copied.code, len(runs(root)), differences(pair)) == (0, 1, []), copied.out


def test_json_names_the_same_command(pair: Pair, tmp_path: Path) -> None:
    end = run(pair.sandbox, tmp_path / "runs", "--json")
    record = json.loads(end.out)
    assert record["next_commands"] == report(tmp_path / "runs")["next_commands"]
    assert record["next_commands"][0].startswith("bin/verify ")


def test_phases_lead_from_one_to_the_next_until_all_is_equal(pair: Pair, tmp_path: Path) -> None:
    end = run(pair.sandbox, tmp_path / "runs", program="migrate_organization")
    for _ in range(10):
        program, arguments = next_of(end)
        assert end.code in (0, 1), (program, end.out)
        end = run(pair.sandbox, tmp_path / "runs", *arguments, program=program)
        if program == "verify":
            break
    assert (end.code, differences(pair)) == (0, []), end.out


def test_a_phase_that_waits_for_what_was_excluded_leads_to_the_phase_that_moves_it(
    pair: Pair, tmp_path: Path
) -> None:
    root, excluded = tmp_path / "runs", ("--exclude-resources", "datasets")
    first = run(pair.sandbox, root, *excluded, program="migrate_experiments")
    assert first.code == 1, first.out
    program, arguments = next_of(first)
    assert (program, "--exclude-resources" in arguments) == ("migrate_datasets", False), first.out
    second = run(pair.sandbox, root, *arguments, program=program)
    assert (second.code, len(pair.dest.objects("dataset"))) == (0, 2), second.out


@pytest.mark.parametrize(
    ("path", "kind"), [("/environment", "environment"), ("/v1/span_iframe", "span_iframe")]
)
@pytest.mark.variants(1)
def test_an_object_that_only_the_verification_saw_is_moved_by_the_next_command(
    path: str, kind: str, pair: Pair, tmp_path: Path
) -> None:
    """Its list was incomplete when its phase ran, and another phase of the run is open."""
    faults, root = pair.sandbox.faults, tmp_path / "runs"
    refused = Fault("status", "globex", "POST", "^/v1/acl$", times=None, status=400, body="no")
    faults.add(refused)
    faults.add(
        Fault("status", "acme", "GET", rf"^{path}(\?|$)", None, status=200, body={"objects": []})
    )
    first = run(pair.sandbox, root, "--verify")
    assert (first.code, pair.dest.objects(kind)) == (1, []), first.out
    faults.clear()
    faults.add(refused)
    second = run_next(pair, first, root)
    assert (second.code, "missing:" in second.out) == (1, True), second.out
    faults.clear()
    third = run_next(pair, second, root)
    assert (third.code, differences(pair)) == (0, []), third.out


def test_rows_that_differ_next_to_rows_of_a_person_are_accepted_by_the_next_commands(
    pair: Pair, tmp_path: Path
) -> None:
    source_beta = pair.source.objects("project")[1]["id"]
    beta = pair.dest.create("project", {"name": "beta"})["id"]
    shown = pair.source.rows("project_logs", source_beta)[0]["id"]
    rows = [{"id": shown, "input": "theirs"}, {"id": "only there", "input": "theirs"}]
    pair.dest.insert("project_logs", beta, rows)
    first = run(pair.sandbox, tmp_path / "runs", "--verify")
    assert (first.code, next_of(first)[0]) == (1, "accept"), first.out
    arguments = [*next_of(first)[1], "--yes"]
    accepting = start("bt_migrate.phases.accept", arguments, environment(pair.sandbox), tmp_path)
    second = ended(accepting)
    assert (second.code, next_of(second)[0]) == (0, "migrate_all"), second.out
    third = run_next(pair, second, tmp_path / "runs")
    assert third.code == 0, third.out


def test_a_project_that_a_person_deleted_in_the_destination_is_moved_by_the_next_command(
    pair: Pair, tmp_path: Path
) -> None:
    """To start again, for example: the unfinished run still knows the project."""
    faults, root = pair.sandbox.faults, tmp_path / "runs"
    faults.add(Fault("status", "globex", "POST", "^/v1/acl$", times=None, status=400, body="no"))
    first = run(pair.sandbox, root, "--verify")
    faults.clear()
    beta = next(item for item in pair.dest.objects("project") if item["name"] == "beta")
    pair.dest.delete("project", beta["id"])
    writes = len(pair.sandbox.inserted)
    second = run_next(pair, first, root)
    assert (second.code, "project 'beta' was deleted" in second.err) == (3, True), second.err
    assert len(pair.sandbox.inserted) == writes
    third = run_next(pair, second, root)
    compared = report(root)["verification"]
    missing = [compared[part].get("missing", 0) for part in ("objects", "counts", "rows")]
    assert (len(runs(root)), missing) == (2, [0, 0, 0]), third.out
    # what refers to the project from outside still holds ids of the deleted one
    assert next_of(third)[0] == "accept", third.out


@pytest.mark.parametrize("kind", ["group", "dataset", "prompt", "environment"])
@pytest.mark.variants(1)
def test_an_object_that_a_person_deleted_in_the_destination_is_moved_by_the_next_command(
    pair: Pair, tmp_path: Path, kind: str
) -> None:
    faults, root = pair.sandbox.faults, tmp_path / "runs"
    faults.add(Fault("status", "globex", "POST", "^/v1/acl$", times=None, status=400, body="no"))
    first = run(pair.sandbox, root, "--verify")
    faults.clear()
    deleted = pair.dest.objects(kind)[0]
    pair.dest.delete(kind, deleted["id"])
    writes = len(pair.sandbox.inserted)
    second = run_next(pair, first, root)
    assert f"{kind} {deleted['name']!r} was deleted" in second.err, second.err
    assert (second.code, len(pair.sandbox.inserted)) == (3, writes)
    third = run_next(pair, second, root)
    assert deleted["name"] in [item["name"] for item in pair.dest.objects(kind)]
    missing = [report(root)["verification"][part].get("missing", 0) for part in ("objects", "rows")]
    assert (len(runs(root)), missing) == (2, [0, 0]), third.out
    # what refers to the object still holds the id of the deleted one
    words = next_of(third)[0], "=update" in third.out.splitlines()[-1]
    assert third.code == 0 or words in (("accept", False), ("migrate_all", True)), third.out


def test_an_object_that_the_destination_does_not_list_but_has_is_not_taken_for_deleted(
    pair: Pair, tmp_path: Path
) -> None:
    faults, root = pair.sandbox.faults, tmp_path / "runs"
    faults.add(Fault("status", "globex", "POST", "^/v1/acl$", times=None, status=400, body="no"))
    first = run(pair.sandbox, root, "--verify")
    faults.clear()
    empty = {"status": 200, "body": '{"objects":[]}'}
    faults.add(Fault("status", "globex", "GET", "^/v1/group($|[?])", times=1, **empty))
    second = run_next(pair, first, root)
    assert second.code != 3, second.err


def _set_key(org: Any, kind: str, object_id: str, value: str) -> None:
    """Sets a name in the store, which the API would refuse."""
    field = "slug" if kind == "function" else "name"
    org._store.entries[KINDS[kind].store][object_id].data[field] = value


def test_names_that_were_swapped_in_the_source_are_written_by_the_next_command(
    pair: Pair, tmp_path: Path
) -> None:
    """A sync renames scores. The API cannot rename functions: a person deletes them, as is said."""
    project = pair.source.objects("project")[0]["id"]
    code = {"type": "code", "data": {"type": "inline", "runtime_context": NODE, "code": "1"}}
    bodies = {
        "project_score": {"score_type": "slider"},
        "function": {"function_type": "tool", "function_data": code},
    }
    keys = {"project_score": "name", "function": "slug"}
    ids = {
        (kind, key): pair.source.create(
            kind, {"project_id": project, "name": key, "description": key, field: key, **body}
        )["id"]
        for kind, body in bodies.items()
        for key in ("one", "two")
        for field in [keys[kind]]
    }
    assert run(pair.sandbox, tmp_path).code == 0
    for (kind, key), object_id in ids.items():
        _set_key(pair.source, kind, object_id, "two" if key == "one" else "one")
    done = run(pair.sandbox, tmp_path, "--since-last")
    assert next_of(done)[1][-2:] == ["--on-conflict", "functions=update"]
    told = [problem["reason"] for problem in report(tmp_path)["problems"]]
    for obj in pair.dest.objects("function"):
        if any(f"delete {obj['id']} there" in text for text in told):
            pair.dest.delete("function", obj["id"])
    ended_well = run_next(pair, done, tmp_path)
    assert ended_well.code == 0, ended_well.out
    found = {
        (kind, obj[keys[kind]]): obj["description"]
        for kind in keys
        for obj in pair.dest.objects(kind)
    }
    assert found.items() >= {(kind, key): other for kind in keys for key, other in SWAPPED}.items()


def test_two_objects_of_one_name_in_the_source_are_reported_until_one_is_renamed(
    pair: Pair, tmp_path: Path
) -> None:
    body = {"project_id": pair.source.objects("project")[0]["id"], "score_type": "slider"}
    first, second = (
        pair.source.create("project_score", {**body, "name": name})["id"] for name in ("a", "b")
    )
    _set_key(pair.source, "project_score", second, "a")
    done = run(pair.sandbox, tmp_path)
    for _ in range(2):
        (problem,) = report(tmp_path)["problems"]
        assert done.code == 1
        assert problem["reason"].startswith("the source has another object of that name (")
        done = run_next(pair, done, tmp_path)
    _set_key(pair.source, "project_score", second, "b")
    assert run_next(pair, done, tmp_path).code == 0
