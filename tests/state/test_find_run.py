"""Which run a program works in."""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict

import pytest

import bt_migrate.state.find_run as find_run_module
from bt_migrate.errors import StateError, UsageError
from bt_migrate.state.find_run import find_run, make_run_folder
from bt_migrate.state.run_directory import RunDirectory, fingerprints_in, run_at, runs_in
from bt_migrate.state.run_files import RUN_FILE
from tests.support.run_state import ALL, finish, found, identity, settings_for

# -- the right run


def test_an_unfinished_run_is_resumed_by_the_same_command(root: Path) -> None:
    first = found(root)
    assert [found(root).path, found(root).path, len(list(runs_in(root)))] == [
        first.path,
        first.path,
        1,
    ]


def test_two_processes_that_start_at_once_get_one_run(root: Path) -> None:
    """Neither of them searches while the folder is locked, so both search at the same time."""
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with ThreadPoolExecutor(2) as pool:
        starts = [pool.submit(found, root) for _ in range(2)]
        created = wait(starts, timeout=0.2).done
        os.close(fd)
        paths = {start.result().path for start in starts}
    assert (created, len(paths), len(list(runs_in(root)))) == (set(), 1, 1)


def test_a_run_that_this_user_cannot_read_is_not_taken_for_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = found(root).path
    monkeypatch.setattr(os, "access", lambda place, _: place != path)  # tests may run as root
    for search in (lambda: found(root), lambda: list(runs_in(root)), lambda: run_at(root)):
        with pytest.raises(StateError, match=f"^{path}: this user cannot read it; run as"):
            search()


def test_a_finished_run_is_followed_by_a_new_one(root: Path) -> None:
    first = found(root)
    finish(first)
    second = found(root)
    assert (first.path != second.path, found(root).path) == (True, second.path)


@pytest.mark.parametrize(
    "changes",
    [
        {"resources": ["logs"]},
        {"projects": ["Alpha"]},
        {"after": "2026-01-15T00:00:00Z"},
        {"before": "2026-01-15T00:00:00Z"},
    ],
)
def test_another_selection_is_another_run(root: Path, changes: Dict[str, Any]) -> None:
    first, other = found(root), found(root, today=identity(**changes))
    assert (first.path != other.path, found(root, today=identity(**changes)).path) == (
        True,
        other.path,
    )


@pytest.mark.parametrize("changes", [{"source": "other"}, {"dest": "other"}])
def test_runs_of_other_organizations_in_the_same_folder_are_ignored(
    root: Path, changes: Dict[str, Any]
) -> None:
    first = found(root)
    other = found(root, today=identity(**changes))
    assert (
        first.path != other.path,
        found(root).path,
        found(root, today=identity(**changes)).path,
    ) == (True, first.path, other.path)


def test_swapped_keys_are_refused_where_a_run_moved_the_other_way(root: Path) -> None:
    there = identity()
    back = identity(source=there.dest.org_id, dest=there.source.org_id)
    found(root, today=back)  # ended before it wrote: a mistake that was noticed
    run = found(root)
    run.record.wrote = True
    run.save()
    for command in (ALL, "validate", "verify"):
        with pytest.raises(UsageError, match="now it would be the other way; swap the keys"):
            found(root, today=back, command=command)


def test_another_url_of_the_same_organizations_is_the_same_run(root: Path) -> None:
    first = found(root)
    today = identity()
    today.source.url = "https://elsewhere.example.test"
    assert found(root, today=today).path == first.path


def test_a_dry_run_is_never_resumed_and_never_taken_for_a_real_one(root: Path) -> None:
    real = found(root)
    dry = [found(root, today=identity(dry_run=True)).path for _ in range(2)]
    assert (len({real.path, *dry}), found(root).path) == (3, real.path)


def test_new_run_starts_another_run(root: Path) -> None:
    first = found(root)
    second = found(root, new_run=True)
    assert (second.path != first.path, found(root).path) == (True, second.path)


def test_only_the_newest_run_is_considered(root: Path) -> None:
    oldest = found(root)
    newer = found(root, new_run=True)
    finish(newer)
    assert found(root).path not in (oldest.path, newer.path)


def test_phase_scripts_share_a_run_until_one_is_started_again(root: Path) -> None:
    first = found(root, "migrate-datasets")
    first.mark_phases_done(["migrate-datasets"])
    logs = found(root, "migrate-logs")
    logs.mark_phases_done(["migrate-logs"])
    again = found(root, "migrate-logs")
    again.mark_phases_done(["migrate-logs"])
    datasets = found(root, "migrate-datasets")
    assert (logs.path, again.path != first.path, datasets.path) == (first.path, True, again.path)


def test_an_interrupted_phase_is_resumed(root: Path) -> None:
    assert found(root, "migrate-logs").path == found(root, "migrate-logs").path


def test_a_phase_continues_the_unfinished_run_of_migrate_all(root: Path) -> None:
    assert found(root, ALL).path == found(root, "migrate-logs").path


def test_migrate_all_does_not_continue_a_run_of_phase_scripts(root: Path) -> None:
    assert found(root, "migrate-logs").path != found(root, ALL).path


def test_a_folder_that_is_not_a_run_is_ignored(root: Path) -> None:
    (root / "99999999_000000").mkdir(parents=True)
    (root / "notes.txt").write_text("mine")
    first = found(root)
    assert (found(root).path, [run.path for run in runs_in(root)]) == (first.path, [first.path])


def test_a_damaged_older_run_does_not_disturb_a_new_one(root: Path) -> None:
    older = found(root)
    (older.path / RUN_FILE).write_text("{")
    newer = found(root, new_run=True)
    assert found(root).path == newer.path


# -- a run that is named


def test_a_run_that_is_named_is_used_even_if_it_is_finished(root: Path, run: RunDirectory) -> None:
    finish(run)
    found(root)
    assert (found(run.path).path, found(root, resume=run.path).path) == (run.path, run.path)


def test_the_run_to_resume_wins_over_the_state_dir(
    root: Path, tmp_path: Path, run: RunDirectory
) -> None:
    assert (
        found(tmp_path / "elsewhere", resume=run.path).path,
        (tmp_path / "elsewhere").exists(),
    ) == (run.path, False)


@pytest.mark.parametrize("name", ["nowhere", "checkpoints"])
def test_a_path_to_resume_that_is_not_a_run_is_refused(
    root: Path, run: RunDirectory, name: str
) -> None:
    with pytest.raises(UsageError) as refused:
        found(root, resume=name)
    assert (
        str(refused.value)
        == f"MIGRATION_RESUME_RUN_DIR: {name} is not a run directory (it has no run.json)"
    )


def test_the_folder_of_a_project_stands_for_its_run_and_that_project_only(
    run: RunDirectory,
) -> None:
    folder = run.folder("a/b")
    folder.mkdir()
    resumed, settings = find_run(settings_for(folder), identity(), ALL)
    assert (resumed.path, settings.projects) == (run.path, ("a/b",))


def test_the_current_folder_can_be_the_folder_of_a_project(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.folder("Alpha").mkdir()
    monkeypatch.chdir(run.folder("Alpha"))
    resumed, settings = find_run(settings_for(Path(".")), identity(), ALL)
    assert (resumed.path.resolve(), settings.projects) == (run.path.resolve(), ("Alpha",))


@pytest.mark.parametrize("name", ["organization", "Nobody"])
def test_a_folder_in_a_run_that_is_not_a_project_folder_is_refused(
    run: RunDirectory, name: str
) -> None:
    with pytest.raises(UsageError) as refused:
        found(run.path / name)
    assert (
        str(refused.value)
        == f"--state-dir: {run.path / name} is not a project folder of the run {run.path}"
    )


@pytest.mark.parametrize("side", ["source", "dest"])
def test_a_named_run_of_another_organization_is_refused_with_both(
    run: RunDirectory, side: str
) -> None:
    with pytest.raises(UsageError) as refused:
        found(run.path, today=identity(**{side: "other"}))
    was = {"source": "SRC (src)", "dest": "DST (dst)"}[side]
    assert str(refused.value) == (
        f"{run.path}: was made for {side} organization {was}, now it is OTHER (other); use "
        "its keys or another --state-dir"
    )


def test_runs_with_other_renamed_projects_are_not_used(tmp_path: Path) -> None:
    """Renamed projects go elsewhere: such a run is not resumed, and its state is not read."""
    today = identity(renamed={"Alpha": "Beta"})
    first = found(tmp_path)
    states = first.objects("datasets", "Alpha")
    states.fingerprints["s1"] = ["a", "b"]
    states.save()
    other = found(tmp_path, today=today)
    assert (first.same_pair(identity()), first.same_pair(today), other.path == first.path) == (
        True,
        False,
        False,
    )
    assert (fingerprints_in(first, "datasets"), fingerprints_in(other, "datasets")) == (
        {"s1": ["a", "b"]},
        {},
    )
    with pytest.raises(
        UsageError, match="was made with rename_projects = None, now it is {'Alpha': 'Beta'}"
    ):
        found(first.path, today=today)


def test_an_undone_run_is_refused_and_what_it_left_is_forgotten(tmp_path: Path) -> None:
    first = found(tmp_path)
    states = first.objects("datasets", "Alpha")
    states.fingerprints["s1"] = ["a", "b"]
    states.save()
    first.record.undone = {"started": "x"}
    first.record.finished = True
    first.save()
    assert (found(tmp_path).path == first.path, fingerprints_in(first, "datasets")) == (False, {})
    with pytest.raises(UsageError, match="was undone"):
        found(first.path)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"after": "2026-01-15T00:00:00Z"}, "created_after"),
        ({"before": "2026-01-15T00:00:00Z"}, "created_before"),
    ],
)
def test_a_named_run_of_another_window_is_refused_with_both(
    run: RunDirectory, changes: Dict[str, Any], name: str
) -> None:
    with pytest.raises(UsageError) as refused:
        found(run.path, today=identity(**changes))
    assert str(refused.value) == (
        f"{run.path}: was made with {name} = None, now it is 2026-01-15T00:00:00Z; use the "
        "same or another --state-dir"
    )


@pytest.mark.parametrize(
    ("was", "today", "expected"),
    [
        ({"projects": ["Alpha"]}, {"projects": ["Beta"]}, "projects Alpha, now they are Beta"),
        ({"projects": ["Alpha"]}, {"projects": []}, "projects Alpha, now they are all"),
        (
            {"resources": ["logs"]},
            {"resources": ["datasets", "logs"]},
            "resources logs, now they are datasets, logs",
        ),
    ],
)
def test_a_named_run_is_not_widened(
    root: Path, was: Dict[str, Any], today: Dict[str, Any], expected: str
) -> None:
    run = found(root, today=identity(**was))
    with pytest.raises(UsageError) as refused:
        found(run.path, today=identity(**today))
    assert str(refused.value) == f"{run.path}: was made for {expected}; use another --state-dir"


@pytest.mark.parametrize("today", [{"resources": ["logs"]}, {"projects": ["Alpha"]}])
def test_a_part_of_a_named_run_may_be_done(run: RunDirectory, today: Dict[str, Any]) -> None:
    assert found(run.path, today=identity(**today)).path == run.path


@pytest.mark.parametrize(("was", "today", "word"), [(False, True, "real"), (True, False, "dry")])
def test_dry_and_real_do_not_mix_in_a_named_run(
    root: Path, was: bool, today: bool, word: str
) -> None:
    run = found(root, today=identity(dry_run=was))
    with pytest.raises(UsageError) as refused:
        found(run.path, today=identity(dry_run=today))
    assert str(refused.value) == f"{run.path}: is a {word} run; use another --state-dir"


@pytest.mark.parametrize("named", ["state_dir", "resume"])
def test_a_new_run_cannot_be_asked_for_inside_a_named_one(
    root: Path, run: RunDirectory, named: str
) -> None:
    with pytest.raises(UsageError):
        found(run.path, new_run=True) if named == "state_dir" else found(
            root, resume=run.path, new_run=True
        )


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_state_dir_that_cannot_be_made_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="^--state-dir: "):
        found(tmp_path / name)


def test_a_second_with_too_many_runs_is_an_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find_run_module, "MAX_RUNS_OF_A_SECOND", 3)
    at = datetime(2026, 1, 13, 21, 25, 30, tzinfo=timezone.utc)
    names = [make_run_folder(root, at).name for _ in range(3)]
    assert names == ["20260113_212530", "20260113_212530_01", "20260113_212530_02"]
    with pytest.raises(StateError, match="holds 3 runs of this second"):
        make_run_folder(root, at)
