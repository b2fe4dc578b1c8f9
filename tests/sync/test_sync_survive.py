"""Syncs that are killed, objects that fail, first copies that never came to their end: the next
sync heals it, and nothing is doubled.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import (
    SOURCE_KEY,
    TIME_LIMIT_S,
    AtRequest,
    Ended,
    ended,
    environment,
    everything,
    findings,
    is_insert,
    report,
    run,
    runs,
    started,
)
from tests.support.row_runs import World, call, forbidding
from tests.support.sandbox_http import Http
from tests.support.syncs import (
    DATASET,
    EXPERIMENT,
    KINDS,
    LOGS,
    equal,
    first_sync,
    holder,
    later,
    living,
    marks,
    merge,
    row,
    sent,
    sync,
    twin,
)
from tests.support.undoing import undo

SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": "20",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "6",
    "MIGRATION_CHECKPOINT_INTERVAL": "2",
    "MIGRATION_MAX_CONCURRENT": "3",
}
PLACES = random.Random(20261126).sample(
    [(at, moment) for at in range(1, 27) for moment in ("before", "after")], 24
)
SHORT = 3  # of the places: those that run without --long


def is_row_request(method: str, path: str) -> bool:
    return method == "POST" and (path == "/btql" or is_insert(path))


def killed(
    w: World, at: int, moment: str, matches: Any = is_row_request, program: str = "migrate_all"
) -> Ended:
    """A sync that dies at a request; later ones may not come so far."""
    place = AtRequest(at, moment, signal.SIGKILL, matches)
    later(w, 3600)
    with started(w.sandbox, w.root, "--since-last", program=program, **SMALL) as process:
        place.process, w.sandbox.on_request = process, place
        try:
            return ended(process)
        finally:
            w.sandbox.on_request = None


def change(w: World, seed: int) -> int:
    """New rows, edits and late scores everywhere; how many versions were written."""
    rng, count = random.Random(seed), 0
    for number in range(len(w.source.objects("project"))):
        for kind in KINDS:
            some = [f"r{place:05}" for place in rng.sample(range(30), 12)]
            source = holder(w, kind, number)
            w.source.insert(kind, source, [row(f"{seed}-{count}") for count in range(9)])
            w.source.insert(
                kind, source, [row(row_id, metadata={"seed": seed}) for row_id in some[:6]]
            )
            merge(
                w.source,
                kind,
                source,
                [{"id": row_id, "metadata": {"late": seed}} for row_id in some[6:]],
            )
            count += 9 + 12
    return count


@pytest.mark.parametrize(
    ("at", "moment"),
    [
        pytest.param(*place, marks=[] if number < SHORT else [pytest.mark.long])
        for number, place in enumerate(PLACES)
    ],
)
@pytest.mark.variants(1)
def test_a_killed_round_is_finished_by_the_next_sync(at: int, moment: str, tmp_path: Path) -> None:
    with living(tmp_path, projects=2) as w:
        assert (sync(w, **SMALL).code, equal(w)) == (0, True)
        sent(w)
        before = marks(w)
        versions = change(w, 1)
        first = killed(w, at, moment)
        upper = {kind: mark.get("upper") for kind, mark in marks(w).items()}
        versions += change(w, 2)  # rows that were in flight are written again
        second = sync(
            w, **SMALL
        )  # finishes the round that was left with its own mark, then takes what came since
        assert (second.code, equal(w), findings(w.root, "row_differs")) == (0, True, []), (
            first.code,
            second.last_words,
        )
        assert (first.code in (0, -signal.SIGKILL), len(runs(w.root)), before) == (True, 1, {})
        assert [
            kind
            for kind, mark in marks(w).items()
            if "upper" in mark or mark["from"] <= (upper.get(kind) or 0)
        ] == []
        assert (
            len(sent(w)) <= versions + 40
        )  # what was in flight, in a process with 3 inserts of 6 rows, may come twice


@pytest.mark.parametrize("is_json", [False, True])
@pytest.mark.variants(1)
def test_a_start_that_finishes_a_sync_and_heals_it_in_the_next_one_ends_with_0(
    is_json: bool, tmp_path: Path
) -> None:
    """The unfinished sync ends with 1; the next sync, of the same start, brings what it left."""
    with living(tmp_path) as w:
        first_sync(w)
        change(w, 1)
        assert killed(w, 4, "before").code == -signal.SIGKILL
        unfinished = round_of(w)

        def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
            is_first = round_of(w) == unfinished
            is_bad = is_insert(path) and b"r00" in raw and is_first
            return Answer(400, b"no", "text/plain") if is_bad else None

        w.sandbox.refuse = refuse
        done = sync(w, *(["--json"] if is_json else []))
        assert (done.code, equal(w)) == (0, True), done.last_words
        assert round_of(w) == unfinished + 1
        if is_json:
            assert json.loads(done.out)["exit_code"] == 0
        else:
            assert done.out.count("Migration ") == 1, done.out


def round_of(w: World) -> int:
    record = json.loads((runs(w.root)[-1] / "run.json").read_text(encoding="utf-8"))
    return int(record.get("round", 0))


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 8))]
)
def test_rows_that_are_written_while_rounds_are_killed_arrive_once_more_or_less(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    with living(tmp_path, projects=2) as w:
        assert killed(w, rng.randrange(3, 30), rng.choice(("before", "after"))).code in (
            0,
            -signal.SIGKILL,
        )  # the first copy
        for number in range(3):
            change(w, 100 * seed + number)
            killed(
                w,
                rng.randrange(1, 40),
                rng.choice(("before", "after")),
                lambda method, path: method == "POST",
            )
        end = sync(w, **SMALL)
        assert (end.code, equal(w), findings(w.root, "row_differs"), len(runs(w.root))) == (
            0,
            True,
            [],
            1,
        ), end.last_words


def test_a_first_copy_that_was_killed_is_finished_and_what_came_meanwhile_follows(
    tmp_path: Path,
) -> None:
    with living(tmp_path, projects=2) as w:
        assert killed(w, 6, "after", lambda method, path: is_insert(path)).code == -signal.SIGKILL
        change(w, 1)
        end = sync(w, **SMALL)
        assert (end.code, equal(w), len(runs(w.root))) == (0, True, 1), end.last_words


# Objects that fail
# -----------------------------------------------------------------------------------


def failing(object_id: str, status: int = 403) -> Any:
    """Whatever is asked of the object is refused."""
    return forbidding(object_id, status=status, path="btql")


@pytest.mark.parametrize(
    "kind", [LOGS, *(pytest.param(kind, marks=pytest.mark.long) for kind in (EXPERIMENT, DATASET))]
)
def test_an_object_that_fails_is_behind_and_catches_up_while_the_others_go_on(
    kind: str, tmp_path: Path
) -> None:
    with living(tmp_path, projects=3) as w:
        assert sync(w).code == 0
        bad = holder(w, kind, 1)
        w.sandbox.refuse = failing(bad)
        for number in range(3):  # more rounds than one, so that the mark moves on without it
            for project in range(3):
                w.source.insert(
                    kind,
                    holder(w, kind, project),
                    [row(f"new {number}"), row(f"r{number:05}", metadata=None)],
                )
            later(w)
            end = sync(w)
            assert (end.code, len(findings(w.root, "stream_failed"))) == (1, 1), end.last_words
            others = [
                sorted(project["id"] for project in w.dest.rows(kind, twin(w, kind, project)))[
                    : 1 + number
                ]
                for project in (0, 2)
            ]
            assert others == [[f"new {earlier}" for earlier in range(number + 1)]] * 2
        w.sandbox.refuse = None
        end = sync(w)
        assert (end.code, equal(w), findings(w.root, "stream_failed")) == (0, True, []), (
            end.last_words
        )
        sent(w)
        assert (sync(w).code, sent(w)) == (0, [])


def test_an_object_that_always_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    with living(tmp_path, projects=2) as w:
        w.sandbox.refuse = failing(holder(w, DATASET, 1))
        assert sync(w).code == 1
        for number in range(2):
            for project in range(2):
                w.source.insert(DATASET, holder(w, DATASET, project), [row(f"new {number}")])
            assert sync(w).code == 1
            assert f"new {number}" in [
                row_["id"] for row_ in w.dest.rows(DATASET, twin(w, DATASET, 0))
            ]
        w.sandbox.refuse = None
        end = sync(w)
        assert (end.code, equal(w)) == (0, True), end.last_words


def test_a_stream_copied_in_two_syncs_misses_no_row_changed_meanwhile(
    tmp_path: Path,
) -> None:
    """It fails in the middle of its copy; rows that it has behind it are edited; it is copied to
    its end in a later round.
    """
    with living(tmp_path, projects=1, rows=60) as w:
        answered: List[int] = []

        def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
            if (
                path != "/btql"
                or b"select: *" not in raw
                or b"dataset(" not in raw
                or b"limit: 20" not in raw
            ):
                return None
            answered.append(1)
            return Answer(403, b'{"Code":"ForbiddenError"}') if len(answered) > 2 else None

        w.sandbox.refuse = refuse
        assert sync(w, **SMALL).code == 1
        w.source.insert(
            DATASET, holder(w, DATASET), [row("r00001", metadata={"edited": 1}), row("new")]
        )
        later(w)
        w.sandbox.refuse = None
        end = sync(w, **SMALL)
        assert (end.code, equal(w)) == (0, True), end.last_words


def test_a_failed_object_that_was_deleted_in_the_source_soon_stops_being_a_failure(
    tmp_path: Path,
) -> None:
    with living(tmp_path, projects=2) as w:
        assert sync(w).code == 0
        bad = holder(w, EXPERIMENT, 1)
        w.sandbox.refuse = failing(bad)
        assert sync(w).code == 1
        w.source.delete(EXPERIMENT, bad)
        assert sync(w).code == 1  # one list without it does not prove that it was deleted
        end = sync(w)
        assert (end.code, len(findings(w.root, "gone_from_source"))) == (0, 1), end.last_words


def test_a_lookup_that_times_out_is_halved(tmp_path: Path) -> None:
    with living(tmp_path, rows=60) as w:
        assert sync(w).code == 0
        for start in (0, 30):
            w.source.insert(
                LOGS,
                holder(w, LOGS),
                [row(f"r{number:05}", output="new") for number in range(start, start + 30)],
            )

        def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
            return Answer(504, b"timeout") if path == "/btql" and raw.count(b"'r000") > 16 else None

        w.sandbox.refuse = refuse
        end = sync(w)
        assert (end.code, equal(w)) == (0, True), end.last_words


# After several rounds
# --------------------------------------------------------------------------------


@pytest.mark.recorded  # only transactions tell the edits of several rounds from those of others
def test_undo_after_several_rounds_leaves_the_destination_as_it_was(tmp_path: Path) -> None:
    with living(tmp_path, projects=2) as w:
        project = w.dest.create("project", {"name": "p00"})["id"]
        theirs = w.dest.create(DATASET, {"project_id": project, "name": "dataset 00"})["id"]
        w.dest.insert(DATASET, theirs, [row("theirs")])
        w.dest.insert(LOGS, project, [row("theirs")])
        before = everything(w.dest)
        assert sync(w).code == 0
        for number in range(3):
            change(w, number)
            young = w.source.create(
                EXPERIMENT, {"project_id": w.project, "name": f"young {number}"}
            )["id"]
            w.source.insert(EXPERIMENT, young, [row("a")])
            end = sync(w)
            assert end.code == 0, end.last_words
        done = undo(w, w.root, "--yes")
        assert (done.code, everything(w.dest)) == (0, before), done.out + done.err


def test_verify_after_a_sync_separates_later_changes_from_losses(tmp_path: Path) -> None:
    with living(tmp_path) as w:
        assert sync(w).code == 0
        change(w, 1)
        assert sync(w, "--full").code == 0  # a depth was asked for
        assert report(w.root)["verification"]["equal"] is True
        later(w)
        w.source.insert(LOGS, holder(w, LOGS), [row("since"), row("r00001", output="since")])
        assert call(w, "verify", "--full", MIGRATION_VERIFY_WAIT="0") == 1
        result = report(w.root)["verification"]
        assert (result["arrived"], result["changed_since_copy"]) == (True, 2)
        edited = next(
            row_["id"]
            for row_ in w.source.rows(LOGS, w.project)
            if (row_["metadata"] or {}).get("seed") == 1
        )
        merge(
            w.dest, LOGS, twin(w, LOGS), [{"id": edited, "metadata": {"lost": 1}}]
        )  # changed by the first round, lost since
        (runs(w.root)[-1] / "p00" / "logs_seen.sqlite3").unlink()  # so that only the marks can tell
        assert call(w, "verify", "--full", MIGRATION_VERIFY_WAIT="0") == 1
        assert report(w.root)["verification"]["arrived"] is False


def test_the_lag_counts_from_the_mark_of_the_last_round(tmp_path: Path) -> None:
    with living(tmp_path) as w:
        assert sync(w).code == 0
        change(w, 1)
        later(w, 60)
        assert sync(w).code == 0
        later(w, 60)
        w.source.insert(DATASET, holder(w, DATASET), [row("since")])
        asked = run(w.sandbox, w.root, program="status")
        command = [sys.executable, "-m", "bt_migrate.phases.status", str(w.root), "--lag", "--json"]
        done = subprocess.run(
            command,
            env=environment(w.sandbox),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
        )
        lag = json.loads(done.stdout)["lag"]
        assert (lag["rows"], asked.code) == (1, 2)


@pytest.mark.recorded  # an older data plane knows no star of views
def test_a_kill_between_the_two_requests_for_a_starred_view_is_no_conflict(tmp_path: Path) -> None:
    with living(tmp_path, rows=1) as w:
        owner = {"object_type": "project", "object_id": w.project}
        view = {**owner, "view_type": "logs", "name": "v", "view_data": {"search": {"match": []}}}
        starred = w.source.create("view", {**view, "options": {"freezeColumns": True}})["id"]
        w.source.patch("view", starred, {**owner, "starred": True})
        assert sync(w).code == 0
        # PATCH merges, so only PUT takes the options away; a star needs a PATCH after it.
        source = Http(w.sandbox.url, SOURCE_KEY)
        assert source.put("/v1/view", {**view, "description": "changed"}).status_code == 200
        source.patch(f"/v1/view/{starred}", {**owner, "starred": True})
        assert killed(w, 1, "after", lambda verb, path: verb == "PUT").code == -signal.SIGKILL
        end = sync(w)
        moved = w.dest.objects("view")[0]
        assert (end.code, moved["starred"], moved["options"]) == (0, True, None), end.out
