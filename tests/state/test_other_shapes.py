"""State files of another shape are refused with their name; no program ends with a traceback."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import pytest

from bt_migrate.errors import EXIT_CRASHED, StateError, UsageError
from bt_migrate.phases import report as report_program
from bt_migrate.phases import status as status_program
from bt_migrate.shards.shard_file import shard_in, shard_line
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.status_file import read_status
from bt_migrate.state.stream_state import StreamState
from bt_migrate.state.window_log import windows_taken
from tests.support.orgs import run, runs, tiny_pair
from tests.support.run_state import identity

OTHER_VALUES = [None, 7, "x", [], {}, [7], {"a": 1}, True, -1, "9" * 400]
# changes of one file with which a whole program is started
CHANGES_SHOWN = 100


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a window, and a status of it that says that its process works."""
    root = tmp_path_factory.mktemp("moved") / "runs"
    with tiny_pair() as pair:
        done = run(pair.sandbox, root, "--created-after", "2020-01-01", "--verify", "--counts")
        assert done.code in (0, 1), done.last_words
    (place,) = runs(root)
    status = json.loads((place / "status.json").read_text())
    status.update(state="running", streams=[stream_of_status()])
    (place / "status.json").write_text(json.dumps(status))
    return place


def stream_of_status() -> dict:
    return {
        "kind": "logs", "project": "beta", "name": "beta", "source_id": "s", "done": 1,
        "rows_per_second": 1.5,
    }  # fmt: skip


def places(value: Any, path: Tuple[Any, ...] = (), depth: int = 3) -> Iterator[Tuple[Any, ...]]:
    """Paths to the parts of a JSON value; of lists and of maps by id the first entry."""
    if path:
        yield path
    if depth and isinstance(value, dict):
        for name in list(value)[:40]:
            yield from places(value[name], (*path, name), depth - 1)
    if depth and isinstance(value, list) and value:
        yield from places(value[0], (*path, 0), depth - 1)


def changed(value: Any) -> Iterator[Tuple[str, str]]:
    """(what was changed, the text of the file with one part missing or replaced)."""
    for other in OTHER_VALUES:
        yield f"all: {other!r:.20}", json.dumps(other)
    for path in places(value):
        for other in [*OTHER_VALUES, KeyError]:
            new = copy.deepcopy(value)
            inside = new
            for step in path[:-1]:
                inside = inside[step]
            if other is KeyError and isinstance(inside, dict):
                del inside[path[-1]]
            elif other is not KeyError:
                inside[path[-1]] = other
            yield f"{path}: {other!r:.20}", json.dumps(new)


def wrong_readings(path: Path, read: Any) -> List[str]:
    """Changes of the file that end in anything but its content or an error that names it."""
    whole = path.read_text()
    wrong = []
    try:
        for change, text in changed(json.loads(whole)):
            path.write_text(text)
            try:
                read()
            except StateError as error:
                if not str(error).startswith(f"{path}: "):
                    wrong.append(f"{change}: {error}")
            except Exception as error:
                wrong.append(f"{change}: {type(error).__name__} {error}")
    finally:
        path.write_text(whole)
    return wrong


def test_a_run_json_of_another_shape_is_refused_by_name(moved: Path) -> None:
    assert wrong_readings(moved / "run.json", lambda: RunDirectory(moved)) == []


def test_states_of_objects_of_another_shape_are_refused_by_name(moved: Path) -> None:
    path = next(moved.glob("*/prompts_state.json"))
    assert (
        wrong_readings(path, lambda: ObjectStates(path, "prompts", "beta").over_all_rounds()) == []
    )


@pytest.mark.parametrize("value", [[], ["a"], ["a", "b", "c"]])
@pytest.mark.parametrize("place", ["fingerprints", "owner"])
def test_pairs_of_another_length_are_refused_by_name(
    place: str, value: List[str], moved: Path, tmp_path: Path
) -> None:
    path = tmp_path / "views_state.json"
    data = json.loads(next(moved.glob("*/views_state.json")).read_text())
    source_id = next(iter(data["fingerprints"]))
    if place == "owner":
        data["outcomes"][source_id]["owner"] = value or ["only the kind"]
    else:
        data["fingerprints"][source_id] = value
    path.write_text(json.dumps(data))
    with pytest.raises(StateError, match="views_state.json.*no pair"):
        ObjectStates(path, "views", "beta").over_all_rounds()


def test_checkpoints_of_another_shape_are_refused_by_name(moved: Path) -> None:
    path = moved / "beta" / "logs_state.json"
    assert wrong_readings(path, lambda: StreamState.open(path, {}).content()) == []


def test_a_status_of_another_shape_is_refused_by_name(moved: Path) -> None:
    assert wrong_readings(moved / "status.json", lambda: read_status(moved)) == []


def test_a_window_of_another_shape_is_refused_by_name(moved: Path, tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    shutil.copy(moved.parent / "windows.jsonl", path)
    line = next(line for line in path.read_text().splitlines() if line)
    path.write_text(line)

    def read() -> None:
        windows_taken(tmp_path, identity(), "logs")

    assert wrong_readings(path, read) == []


@pytest.mark.parametrize(
    "program", [status_program, pytest.param(report_program, marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    "name", ["run.json", "status.json", "beta/logs_state.json", "beta/prompts_state.json"]
)
@pytest.mark.variants(1)
def test_programs_that_look_at_a_run_show_or_refuse_what_they_find(
    name: str, program: Any, moved: Path, capsys: pytest.CaptureFixture
) -> None:
    wrong = []
    path = moved / name
    whole = path.read_text()
    changes = list(changed(json.loads(whole)))
    # The readers are tested with all changes.
    for change, text in changes[:: -(-len(changes) // CHANGES_SHOWN)]:
        path.write_text(text)
        code = program.main([str(moved)])
        error = capsys.readouterr().err
        if code == EXIT_CRASHED or (code and f"{path}: " not in error):
            wrong.append(f"{change}: {code} {error}")
    path.write_text(whole)
    assert wrong == []


SHARD = {
    "format": 1,
    "plan": "abc",
    "number": 0,
    "of": 1,
    "mark": {"source": 5, "dest": 5},
    "source": {"org_id": "s", "org_name": "S", "url": "u"},
    "dest": {"org_id": "d", "org_name": "D", "url": "u"},
    "selection": {
        "resources": ["logs"],
        "projects": [],
        "created_after": None,
        "created_before": None,
    },
    "resources": ["logs"],
    "rows": 5,
    "units": [{"kind": "logs", "project": "p", "id": "i", "name": "n", "rows": 5, "new": True}],
}


def test_a_shard_of_another_shape_is_refused_by_name() -> None:
    wrong = []
    for change, text in changed(SHARD):
        try:
            shard_in([text], 0, "shards.jsonl")
        except UsageError as error:
            if "shards.jsonl" not in str(error):
                wrong.append(f"{change}: {error}")
        except Exception as error:
            wrong.append(f"{change}: {type(error).__name__} {error}")
    assert wrong == []


def test_a_shard_is_written_as_it_was_read() -> None:
    unit = {**SHARD["units"][0], "after": "p1", "end": "p2"}
    line = json.dumps({**SHARD, "units": [unit, SHARD["units"][0]]})
    assert shard_line(shard_in([line], 0, "shards.jsonl")) == line


@pytest.mark.parametrize("change", [{"colour": "x"}, {"rows": "5"}, {"after": 7}])
def test_a_unit_of_another_shape_is_refused_with_its_place(change: dict) -> None:
    unit = {**SHARD["units"][0], **change}
    name = next(iter(change))
    with pytest.raises(UsageError, match=rf"line 1 of shards.jsonl .*units\[0\]\.{name}"):
        shard_in([json.dumps({**SHARD, "units": [unit]})], 0, "shards.jsonl")
