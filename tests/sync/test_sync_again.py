"""What failed is not forgotten: each sync tries it again and reports it again, until it has arrived
or is gone from the source.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest

from bt_migrate.phases.accept import main as accept
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Fault
from tests.support.compare_orgs import differences
from tests.support.orgs import AtRequest, Pair, ended, findings, is_insert, report, run, started
from tests.support.row_runs import WRITE, World, refused
from tests.support.syncs import (
    DATASET,
    EXPERIMENT,
    LOGS,
    equal,
    holder,
    later,
    living,
    row,
    sent,
    sync,
    twin,
)

LONG = pytest.mark.long
PICTURE = bytes(range(256)) * 20
Mend = Callable[[], Any]


def uploading(w: World, kind: str) -> Mend:
    """A new row with an attachment that its source has not got whole yet."""
    reference: Dict[str, Any] = w.source.attach(PICTURE, filename="a.png", content_type="image/png")
    kept = w.sandbox.files.attachments[(w.source.id, reference["key"])]
    kept.upload_status = "uploading"
    w.source.insert(kind, holder(w, kind), [{"id": "late", "input": {"file": reference}}])
    return lambda: setattr(kept, "upload_status", "done")


def too_odd(w: World, kind: str) -> Mend:
    """A new row that the destination refuses."""
    w.source.insert(kind, holder(w, kind), [row("late")])

    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        return Answer(400, b"no such row") if is_insert(path) and b'"late"' in raw else None

    w.sandbox.refuse = refuse
    return lambda: setattr(w.sandbox, "refuse", None)


def unheard(w: World, kind: str) -> Mend:
    """A new row whose comment the destination refuses."""
    w.source.insert(kind, holder(w, kind), [row("late")])
    w.source.comment(kind, holder(w, kind), "late", "well done")

    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        is_comment = path == "/logs3" and b'"comment":' in raw
        return Answer(400, b"no comments") if is_comment else None

    w.sandbox.refuse = refuse
    return lambda: setattr(w.sandbox, "refuse", None)


FAILURES = {"attachment_not_copied": uploading, "row_refused": too_odd, "comment_refused": unheard}


def failures(w: World) -> List[str]:
    return [
        record["kind"] for record in report(w.root)["findings"] if record["severity"] == "failure"
    ]


def late_row(w: World, kind: str) -> Dict[str, Any]:
    return next(row_ for row_ in w.dest.rows(kind, twin(w, kind)) if row_["id"] == "late")


@pytest.mark.parametrize(
    ("failure", "when"),
    [
        *((failure, "in a sync") for failure in sorted(FAILURES)),
        ("attachment_not_copied", "in the first copy"),
        *(
            pytest.param(failure, "in the first copy", marks=LONG)
            for failure in ("comment_refused", "row_refused")
        ),
    ],
)
@pytest.mark.variants(1)
def test_failed_rows_are_tried_by_each_sync_until_they_arrive(
    failure: str, when: str, tmp_path: Path
) -> None:
    with living(tmp_path) as w:
        if when == "in a sync":
            assert sync(w).code == 0
        repair = FAILURES[failure](w, LOGS)
        assert [(sync(w).code, failures(w)) for _ in range(3)] == [(1, [failure])] * 3
        assert len(refused(w.root)) == (1 if failure == "row_refused" else 0)
        repair()
        sent(w)
        ends = [sync(w).code for _ in range(2)]
        assert (ends, failures(w), [row_id for _, row_id in sent(w)]) == ([0, 0], [], ["late"])
        if failure == "attachment_not_copied":
            assert w.dest.attachment(late_row(w, LOGS)["input"]["file"]["key"]) == PICTURE
        else:
            assert equal(w)
            assert len(late_row(w, LOGS).get("comments") or []) == (
                1 if failure == "comment_refused" else 0
            )


def test_rows_that_are_too_many_to_be_tried_again_are_reported_until_they_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bt_migrate.rows.copy.TRIED_AGAIN", 4)
    with living(tmp_path, rows=3) as w:
        repair = too_odd(w, LOGS)
        rows = [row("late"), *(row(f"later {number}", input="late") for number in range(10))]
        w.source.insert(LOGS, holder(w, LOGS), rows)
        for _ in range(2):
            assert sync(w).code == 1
            assert sum(found["count"] for found in findings(w.root, "row_refused")) == 11
        repair()
        sent(w)
        assert (sync(w).code, len(sent(w)), equal(w)) == (0, 11, True)


@pytest.mark.parametrize("when", ["in a sync", "in the first copy"])
@pytest.mark.variants(1)
def test_rows_that_are_too_many_to_be_tried_again_are_accepted_as_a_whole(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sync tries others of them again, and each row has a reason of its own."""
    for module in ("rows.copy", "rows.streams"):
        monkeypatch.setattr(f"bt_migrate.{module}.TRIED_AGAIN", 4)
    with living(tmp_path, rows=3) as w:
        refusals = iter(range(10_000))
        w.sandbox.refuse = lambda method, path, raw: (
            Answer(400, f"refused, request {next(refusals)}".encode())
            if is_insert(path) and b'"late"' in raw
            else None
        )
        if when == "in a sync":
            assert sync(w).code == 0
        rows = [row(f"later {number}", input="late") for number in range(11)]
        w.source.insert(LOGS, holder(w, LOGS), rows)
        assert sync(w).code == 1
        if when == "in a sync":
            assert sync(w).code == 1  # from now on the rows are too many
        assert accept([str(w.root), "--all", "--yes"]) == 0
        assert [sync(w).code for _ in range(3)] == [0, 0, 0]
        (accepted,) = findings(w.root, "accepted_difference")
        assert "rows: 11" in accepted["detail"]
        w.source.insert(LOGS, holder(w, LOGS), [row("new", input="late")])
        assert [sync(w).code for _ in range(2)] == [1, 1]
        assert accept([str(w.root), "--all", "--yes"]) == 0
        assert [sync(w).code for _ in range(2)] == [0, 0]


@pytest.mark.parametrize("failure", sorted(FAILURES))
@pytest.mark.variants(1)
def test_what_never_arrives_can_be_accepted_and_still_arrives_once_it_can(
    failure: str, tmp_path: Path
) -> None:
    with living(tmp_path) as w:
        repair = FAILURES[failure](w, LOGS)
        assert sync(w).code == 1
        assert accept([str(w.root), "--all", "--yes"]) == 0
        assert [(sync(w).code, failures(w)) for _ in range(2)] == [(0, [])] * 2
        assert [record["name"] for record in findings(w.root, "accepted_difference")] == ["p00"]
        repair()
        assert (sync(w).code, findings(w.root, "accepted_difference")) == (0, [])
        assert "late" in {row_["id"] for row_ in w.dest.rows(LOGS, twin(w, LOGS))}


@pytest.mark.parametrize(
    "kind", [LOGS, pytest.param(EXPERIMENT, marks=LONG), pytest.param(DATASET, marks=LONG)]
)
def test_an_attachment_that_cannot_be_copied_is_not_written_by_each_sync(
    kind: str, tmp_path: Path
) -> None:
    with living(tmp_path) as w:
        uploading(w, kind)
        assert sync(w).code == 1
        before = len(w.sandbox.writes(WRITE))
        assert [sync(w).code for _ in range(2)] == [1, 1]
        assert len(w.sandbox.writes(WRITE)) == before


def test_a_failed_row_that_was_deleted_in_the_source_is_no_longer_a_failure(tmp_path: Path) -> None:
    with living(tmp_path) as w:
        assert sync(w).code == 0
        uploading(w, EXPERIMENT)
        assert sync(w).code == 1
        w.source.insert(EXPERIMENT, holder(w, EXPERIMENT), [{"id": "late", "_object_delete": True}])
        assert [sync(w).code for _ in range(2)] == [0, 0]


def test_a_failed_row_that_was_edited_in_the_destination_is_kept(
    tmp_path: Path,
) -> None:
    with living(tmp_path) as w:
        repair = uploading(w, LOGS)
        assert sync(w).code == 1
        later(w)
        w.dest.insert(LOGS, twin(w, LOGS), [row("late", output="theirs")])
        repair()
        sync(w)
        assert (late_row(w, LOGS)["output"], sync(w).code) == ("theirs", 0)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.variants(1)
def test_failures_of_a_killed_sync_are_tried_again(moment: str, tmp_path: Path) -> None:
    with living(tmp_path) as w:
        assert sync(w).code == 0
        repair = uploading(w, LOGS)
        at = AtRequest(1, moment, signal.SIGKILL, lambda method, path: is_insert(path))
        later(w, 3600)
        with started(w.sandbox, w.root, "--since-last", "--no-verify") as process:
            at.process, w.sandbox.on_request = process, at
            assert ended(process).code == -signal.SIGKILL
        w.sandbox.on_request = None
        assert [sync(w).code for _ in range(2)][-1] == 1
        repair()
        assert sync(w).code == 0
        assert w.dest.attachment(late_row(w, LOGS)["input"]["file"]["key"]) == PICTURE


def test_a_sync_completes_references_that_the_sync_before_left_open(
    pair: Pair, tmp_path: Path
) -> None:
    refused = Fault("status", "globex", "POST", path="^/v1/dataset$", times=None, status=413)
    pair.sandbox.faults.add(refused)
    first = run(pair.sandbox, tmp_path / "runs", "--since-last")
    assert (first.code, pair.dest.objects("dataset")) == (1, []), first.out
    pair.sandbox.faults.clear()
    second = run(pair.sandbox, tmp_path / "runs", "--since-last")
    assert (second.code, differences(pair)) == (0, []), second.out + second.err


def test_a_sync_completes_what_it_updated_without_a_reference(pair: Pair, tmp_path: Path) -> None:
    assert run(pair.sandbox, tmp_path / "runs", "--since-last").code == 0
    experiment = pair.source.objects("experiment")[0]
    body = {"project_id": experiment["project_id"], "name": "new"}
    dataset = pair.source.create("dataset", body)["id"]
    pair.source.patch("experiment", experiment["id"], {"dataset_id": dataset})
    refused = Fault("status", "globex", "POST", path="^/v1/dataset$", times=None, status=413)
    pair.sandbox.faults.add(refused)
    assert run(pair.sandbox, tmp_path / "runs", "--since-last").code == 1
    pair.sandbox.faults.clear()
    done = run(pair.sandbox, tmp_path / "runs", "--since-last")
    assert (done.code, differences(pair)) == (0, []), done.out + done.err
