"""The last rows of datasets are written while experiments are made; nothing that has to come after
them goes past them.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import AtRequest, ended, runs, started
from tests.support.row_runs import World, call, small_rows, world

DATASETS, EXPERIMENTS = 3, 4
ROWS = 30


class Held:
    """Inserts into datasets are held until an experiment is made, at most `most_s`, and are then
    answered as the test says.
    """

    def __init__(
        self, w: World, most_s: float = 20, answer: Callable[[], Optional[Answer]] = lambda: None
    ) -> None:
        self._w, self._most_s, self._answer = w, most_s, answer
        self.made = threading.Event()
        self.seen: List[bool] = []  # for each insert, whether the experiment came in time

    def __call__(self, method: str, path: str, raw: bytes) -> Optional[Answer]:
        if (method, path) == ("POST", "/v1/experiment"):
            self.made.set()
        if path == "/logs3" and b'"dataset_id"' in raw:
            self.seen.append(self.made.wait(self._most_s))
            return self._answer()
        return None


Filled = Tuple[World, Dict[str, List[str]]]


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Filled]:
    """A source with datasets, experiments and an automation; the ids of those that hold rows, by
    kind.
    """
    with world(tmp_path) as w:
        ids = {
            "dataset": w.make("dataset", *map(str, range(DATASETS))),
            "experiment": w.make("experiment", *map(str, range(EXPERIMENTS))),
        }
        for kind, some in ids.items():
            for number, object_id in enumerate(some):
                w.source.insert(kind, object_id, small_rows(ROWS, metadata={"of": number}))
        action = {
            "event_type": "logs",
            "btql_filter": "true",
            "interval_seconds": 60,
            "action": {"type": "webhook", "url": "https://hook.example"},
        }
        w.source.create(
            "project_automation", {"project_id": w.project, "name": "Alert", "config": action}
        )
        yield w, ids


def assert_equal(w: World, ids: Dict[str, List[str]]) -> None:
    for kind, some in ids.items():
        source, dest = w.contents(kind, some)
        assert source == dest


def writes(w: World, path: str) -> List[Tuple[float, float]]:
    return sorted(
        (request.started, request.finished)
        for request in w.sandbox.requests
        if request.method == "POST" and request.path == path
    )


def test_experiments_are_made_while_rows_of_datasets_are_written(filled: Filled) -> None:
    w, ids = filled
    w.sandbox.refuse = held = Held(w)
    assert (call(w, "migrate_all", "--no-verify"), set(held.seen)) == (0, {True})
    assert_equal(w, ids)
    done = json.loads((runs(w.root)[-1] / "run.json").read_text(encoding="utf-8"))["phases_done"]
    assert (
        done.index("migrate-datasets")
        < done.index("migrate-definitions")
        < done.index("migrate-experiments")
    )


def test_rows_of_experiments_come_after_those_of_datasets(filled: Filled) -> None:
    """One kind at a time, so that what is in flight and in memory has its bounds for itself."""
    w, ids = filled
    made_s = []

    def answer() -> None:
        time.sleep(0.5)  # all experiments are made meanwhile
        made_s.append(time.time())

    w.sandbox.refuse = Held(w, answer=answer)
    assert call(w, "migrate_all", "--no-verify") == 0
    assert_equal(w, ids)
    assert max(finished for _, finished in writes(w, "/v1/experiment")) < max(made_s)
    inserts = writes(w, "/logs3")
    assert (len(inserts), len(made_s)) == (2, 1)
    assert inserts[0][1] <= inserts[1][0]


def test_what_reacts_to_data_comes_after_all_rows(filled: Filled) -> None:
    w, ids = filled
    w.sandbox.refuse = Held(w, most_s=0.5)  # no experiment is made
    assert call(w, "migrate_all", "--no-verify", "--resources", "datasets,project_automations") == 0
    (insert,), (automation,) = writes(w, "/logs3"), writes(w, "/v1/project_automation")
    assert insert[1] <= automation[0]


def test_finished_phases_are_recorded_before_the_longest_begins(filled: Filled) -> None:
    """With what waited for them completed: logs may take hours, and be killed."""
    w, ids = filled
    w.source.insert("project_logs", w.project, small_rows(5))
    done: List[str] = []

    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        if path == "/logs3" and b'"log_id"' not in raw:
            time.sleep(1.1)
        if path == "/logs3" and b'"log_id"' in raw:
            done.extend(
                json.loads((runs(w.root)[-1] / "run.json").read_text(encoding="utf-8"))[
                    "phases_done"
                ]
            )
        return None

    w.sandbox.refuse = refuse
    assert call(w, "migrate_all", "--no-verify") == 0
    assert done[-1] == "migrate-experiments"


def test_an_error_of_the_background_copy_ends_the_run_and_is_reported(
    filled: Filled, capfd: pytest.CaptureFixture[str]
) -> None:
    w, ids = filled
    w.sandbox.refuse = Held(w, answer=lambda: Answer(401, b"Unauthorized", "text/plain"))
    assert call(w, "migrate_all", "--no-verify", MIGRATION_RETRY_ATTEMPTS="1") == 3
    assert "POST /logs3" in capfd.readouterr().err.splitlines()[-1]
    assert w.sandbox.sent == []
    w.sandbox.refuse = None
    assert call(w, "migrate_all", "--no-verify") == 0
    assert_equal(w, ids)
    assert len(w.sandbox.sent) == len(set(w.sandbox.sent)) == (DATASETS + EXPERIMENTS) * ROWS


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)]
)
@pytest.mark.variants(1)
def test_a_run_killed_while_rows_are_copied_in_the_background_is_resumed(
    number: int, code: int, filled: Filled
) -> None:
    w, ids = filled
    w.sandbox.refuse = held = Held(w, answer=lambda: time.sleep(0.5))
    with started(w.sandbox, w.root) as process:
        at = AtRequest(
            1, "after", number, lambda method, path: (method, path) == ("POST", "/v1/experiment")
        )
        at.process, w.sandbox.on_request = process, at
        assert ended(process).code == code
    assert held.seen == [True]
    w.sandbox.refuse = w.sandbox.on_request = None
    assert call(w, "migrate_all", "--no-verify") == 0
    assert len(runs(w.root)) == 1
    assert_equal(w, ids)
    if number != signal.SIGKILL:  # what was in flight has been finished and written down
        assert len(w.sandbox.sent) == len(set(w.sandbox.sent)) == (DATASETS + EXPERIMENTS) * ROWS
