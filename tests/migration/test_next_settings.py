"""The commands that are recommended after migrate-settings move what its objects wait for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

import pytest

from tests.migration.test_next import next_of
from tests.support.orgs import Pair, findings, report, run
from tests.support.pinned import pinned_pair

LOOP = {
    "event_type": "windowed",
    "status": "paused",
    "window": {"window_seconds": 3600, "evaluation_delay_seconds": 60, "schedule": {}},
    "actions": [],
}


def looking_at_a_view(pair: Pair) -> str:
    """An automation that names a view. Returns the view."""
    project = pair.source.objects("project")[0]["id"]
    place = {"object_type": "project", "object_id": project}
    view = pair.source.create("view", {**place, "view_type": "logs", "name": "costs"})["id"]
    target = {"type": "dashboard", "id": view}
    loop = {"agent_slug": "shift", "prompt": "Look", "target": target}
    config = {**LOOP, "loop": loop}
    automation = {"project_id": project, "name": "rise", "config": config}
    pair.source.create("project_automation", automation)
    return str(view)


def targets(org: Any) -> List[Any]:
    return [obj["config"]["loop"].get("target") for obj in org.objects("project_automation")]


@pytest.mark.recorded  # an older data plane has no environments
def test_after_settings_alone_the_phases_of_what_they_wait_for_are_recommended(
    tmp_path: Path,
) -> None:
    """Assignments wait for environments, which they name by slug, and an automation for a view."""
    with pinned_pair() as pair:
        looking_at_a_view(pair)
        root = tmp_path / "runs"
        first = run(pair.sandbox, root, program="migrate_settings")
        waiting = {name for found in findings(root, "waits") for name in [found["detail"]]}
        assert (first.code, waiting) == (1, {"environments", "functions or prompts", "views"})
        programs = []
        end = first
        while end.code == 1 and len(programs) < 3:
            program, arguments = next_of(end)
            end = run(pair.sandbox, root, *arguments, program=program)
            programs.append(program)
        phases = ["migrate_organization", "migrate_definitions", "migrate_views"]
        assert (end.code, programs) == (0, phases), end.out
        (view,) = pair.dest.objects("view")
        assert targets(pair.dest) == [{"type": "dashboard", "id": view["id"]}]


@pytest.mark.recorded  # an older data plane has no environments
def test_an_assignment_waits_for_its_environment_alone(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        run(pair.sandbox, tmp_path, program="migrate_definitions")
        done = run(pair.sandbox, tmp_path, program="migrate_settings")
        outcomes = {item["outcome"] for item in report(tmp_path)["problems"]}
        assert (done.code, outcomes) == (1, {"waiting"}), done.out
        program, arguments = next_of(done)
        assert program == "migrate_organization"
        done = run(pair.sandbox, tmp_path, *arguments, program=program)
        (greet,) = [obj for obj in pair.dest.objects("prompt") if obj["slug"] == "greet"]
        assert (done.code, list(pair.dest.assignments(greet["id"]))) == (0, ["dev"]), done.out


@pytest.mark.parametrize("programs", ["migrate_all", "organization definitions views settings"])
def test_an_automation_whose_view_was_deleted_lost_it_in_the_source(
    programs: str, tmp_path: Path
) -> None:
    with pinned_pair() as pair:
        pair.source.delete("view", looking_at_a_view(pair))
        for word in programs.split():
            program = word if "_" in word else f"migrate_{word}"
            done = run(pair.sandbox, tmp_path, program=program)
        lost = [found["name"] for found in findings(tmp_path, "lost_at_source")]
        assert (done.code, lost) == (0, ["rise"]), done.out
