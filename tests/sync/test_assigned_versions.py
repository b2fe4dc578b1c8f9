"""Rows that name a version of a prompt which only an environment keeps."""

from __future__ import annotations

from pathlib import Path

from tests.support.orgs import ANA, DEST_KEY, SOURCE_KEY, WatchedSandbox, run


def test_rows_without_the_version_of_an_assigned_prompt_stay_equal_after_its_edit(
    tmp_path: Path,
) -> None:
    with WatchedSandbox() as sandbox:
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[{"email": ANA}])
        sandbox.add_org("globex", api_key=DEST_KEY, users=[{"email": ANA}])
        project = source.create("project", {"name": "alpha"})["id"]
        source.create("environment", {"name": "Prod", "slug": "prod"})
        prompt = {"project_id": project, "name": "P", "slug": "p", "environment_slugs": ["prod"]}
        made = source.create("prompt", prompt)
        origin = {"object_type": "prompt", "object_id": made["id"], "id": made["id"]}
        row = {"id": "r", "origin": {**origin, "_xact_id": made["_xact_id"]}}
        source.insert("project_logs", project, [row])
        for number in range(2):
            for options in (["--since-last"], ["--since-last", "--verify", "--full"]):
                done = run(sandbox, tmp_path, *options)
                assert done.code == 0, f"{number} {options}: {done.out}{done.err}"
            source.patch("prompt", made["id"], {"description": "second"})
        done = run(sandbox, tmp_path / "another", "--verify", "--full")
        assert done.code == 0, done.out + done.err
