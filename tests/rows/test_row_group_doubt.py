"""A server that reads only the first object of a FROM loses no rows to us."""

from __future__ import annotations

from pathlib import Path

import pytest

from bt_migrate.phases import migrate_datasets as migrate_datasets
from tests.support.orgs import WatchedSandbox


@pytest.mark.parametrize("filled", [range(6), range(1, 6), range(5, 6)])
def test_objects_that_seem_empty_are_asked_for_alone(
    filled: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WatchedSandbox() as sandbox:
        sandbox.only_first_id = True
        source, dest = (
            sandbox.add_org("acme", api_key="sk-a"),
            sandbox.add_org("globex", api_key="sk-g"),
        )
        project = source.create("project", {"name": "p"})["id"]
        for number in range(6):
            dataset = source.create("dataset", {"project_id": project, "name": f"d{number}"})["id"]
            if number in filled:
                source.insert(
                    "dataset",
                    dataset,
                    [{"id": f"{number}-{row}", "input": row} for row in range(7)],
                )
        for name, value in (
            ("SOURCE_API_KEY", "sk-a"),
            ("DEST_API_KEY", "sk-g"),
            ("SOURCE_URL", sandbox.url),
            ("DEST_URL", sandbox.url),
        ):
            monkeypatch.setenv(f"BT_{name}", value)
        code = migrate_datasets.main(["--state-dir", str(tmp_path)])
        counts = {
            one["name"]: len(dest.rows("dataset", one["id"])) for one in dest.objects("dataset")
        }
        assert (code, counts) == (
            0,
            {f"d{number}": 7 if number in filled else 0 for number in range(6)},
        )
