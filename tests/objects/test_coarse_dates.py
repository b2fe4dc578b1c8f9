"""A destination that writes the dates of its objects in whole seconds."""

from __future__ import annotations

from pathlib import Path

from tests.support.orgs import (
    ANA,
    DEST_KEY,
    SOURCE_KEY,
    Pair,
    WatchedSandbox,
    report,
    run,
    runs,
)
from tests.support.undoing import undo_run


def test_all_that_a_run_created_counts_as_created_and_is_undone(tmp_path: Path) -> None:
    with WatchedSandbox() as sandbox:
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[{"email": ANA}])
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=[{"email": ANA}])
        project = source.create("project", {"name": "alpha"})["id"]
        for number in range(5):
            fields = {"project_id": project, "name": f"n{number}"}
            for kind in ("dataset", "project_tag", "experiment"):
                source.create(kind, fields)
        sandbox.store.clock.whole_seconds = True
        done = run(sandbox, tmp_path)
        assert done.code == 0, done.out + done.err
        outcomes = {kind["resource"]: kind["outcomes"] for kind in report(tmp_path)["objects"]}
        for kind in ("datasets", "project_tags", "experiments"):
            assert outcomes[kind] == {"created": 5}
        undo_run(Pair(sandbox, source, dest), runs(tmp_path)[0], "--yes")
        assert dest.objects("project") == []
