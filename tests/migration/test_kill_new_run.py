"""After a kill, a new run completes what the killed one left."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from bt_migrate.errors import EXIT_INTERRUPTED
from tests.support.compare_orgs import differences
from tests.support.orgs import AtRequest, run, run_with, runs, tiny_pair


@pytest.mark.parametrize(
    ("number", "moment", "path"),
    [(1, "before", "/v1/experiment"), (1, "after", "/v1/function"), (3, "after", "/v1/function")],
)
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.variants(1)
def test_a_new_run_adds_references_that_a_killed_run_left_out(
    number: int, moment: str, path: str, sent: signal.Signals, tmp_path: Path
) -> None:
    """Functions use each other, and one names an experiment; the first start had no regular end."""
    root = tmp_path / "runs"
    with tiny_pair() as pair:
        at = AtRequest(number, moment, sent, lambda verb, to: (verb, to) == ("POST", path))
        assert run_with(pair, root, at).code in (-sent, EXIT_INTERRUPTED)
        end = run(pair.sandbox, root, "--new-run")
        assert (end.code, differences(pair)) == (0, []), end.out


@pytest.mark.parametrize("kind", ["project", "dataset", "view"])
@pytest.mark.variants(1)
def test_what_somebody_renamed_after_a_kill_is_not_created_again(kind: str, tmp_path: Path) -> None:
    """The killed run is completed; its name differs, so it recommends a run, which is a new one."""
    root = tmp_path / "runs"
    with tiny_pair() as pair:
        at = AtRequest(1, "before", signal.SIGKILL, lambda _, path: path == "/v1/acl")
        assert run_with(pair, root, at).code == -signal.SIGKILL
        theirs = pair.dest.objects(kind)[0]
        owner = {name: theirs[name] for name in ("object_type", "object_id") if name in theirs}
        pair.dest.patch(kind, theirs["id"], {**owner, "name": "by a person"})
        before = [obj["name"] for obj in pair.dest.objects(kind)]
        codes = [run(pair.sandbox, root, "--verify").code for _ in range(2)]
        after = [obj["name"] for obj in pair.dest.objects(kind)]
        assert (codes, after, len(runs(root))) == ([1, 1], before, 2)


def test_a_rename_after_a_kill_is_kept_by_a_new_run(tmp_path: Path) -> None:
    """The killed run left the project to be completed once its user can be resolved."""
    root = tmp_path / "runs"
    with tiny_pair() as pair:
        at = AtRequest(1, "before", signal.SIGKILL, lambda _, path: path == "/v1/dataset")
        assert run_with(pair, root, at).code == -signal.SIGKILL
        project = pair.dest.objects("project")[0]["id"]
        pair.dest.patch("project", project, {"name": "by a person"})
        end = run(pair.sandbox, root, "--new-run")
        names = {obj["id"]: obj["name"] for obj in pair.dest.objects("project")}
        assert (end.code, names[project], len(names)) == (1, "by a person", 2), end.out
