"""A destination whose dates do not say when exactly an object was created."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import pytest

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


@pytest.mark.parametrize(
    ("date_format", "kinds"),
    [
        ("%Y-%m-%dT%H:%M:%SZ", ("dataset", "project_tag", "experiment")),
        # only a date can prove that an experiment was created
        ("2024-01-01T00:00:00.123Z", ("dataset", "project_tag", "agent")),
    ],
)
@pytest.mark.variants(1)
def test_what_a_run_created_counts_as_created_and_is_undone(
    tmp_path: Path, date_format: str, kinds: Sequence[str]
) -> None:
    with WatchedSandbox() as sandbox:
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[{"email": ANA}])
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=[{"email": ANA}])
        project = source.create("project", {"name": "alpha"})["id"]
        for number in range(5):
            fields = {"project_id": project, "name": f"n{number}"}
            for kind in kinds:
                source.create(kind, fields)
        sandbox.store.clock.date_format = date_format
        done = run(sandbox, tmp_path)
        assert done.code == 0, done.out + done.err
        outcomes = {kind["resource"]: kind["outcomes"] for kind in report(tmp_path)["objects"]}
        for kind in kinds:
            assert outcomes[f"{kind}s"] == {"created": 5}
        undo_run(Pair(sandbox, source, dest), runs(tmp_path)[0], "--yes")
        assert dest.objects("project") == []
