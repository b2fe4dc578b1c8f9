"""A killed copy had more in flight than the start that continues it: an edit of its rows stays."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any, Dict, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.operating import until
from tests.support.orgs import AtRequest, events_in, findings, run, run_with
from tests.support.syncs import DATASET, living
from tests.sync.test_killed_edits import edit, edited

PAGES = {
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "10",
    "MIGRATION_EVENTS_FETCH_LIMIT": "20",
    "MIGRATION_MAX_CONCURRENT": "4",
}
COMMAND = ("--resources", "datasets")


def killed_at_batch(w: Any, row_id: str, first_held: str, *args: str) -> None:
    """Kill the copy once the destination took the batch of this row, and no batch that begins with
    rows between `first_held` and that one.
    """
    over = threading.Event()

    def hold(method: str, path: str, raw: bytes) -> Optional[Answer]:
        ids = [event["id"] for _, event in events_in(path, raw)]
        if not ids or row_id in ids or ids[0] < first_held:
            return None
        over.wait(60)
        return Answer(503, b"")

    def is_sent(method: str, path: str) -> bool:
        return row_id in {sent_id for _, sent_id in w.sandbox.sent}

    w.sandbox.refuse = hold
    ended = run_with(
        w, w.root, AtRequest(1, "after", signal.SIGKILL, is_sent), *COMMAND, *args, **PAGES
    )
    over.set()
    w.sandbox.refuse = None
    assert ended.code == -signal.SIGKILL
    (dataset,) = w.dest.objects("dataset")
    until(lambda: row_id in {row["id"] for row in w.dest.rows(DATASET, dataset["id"])})


@pytest.mark.usefixtures("data_plane")
@pytest.mark.parametrize(
    ("row_id", "first_held", "readers", "later"),
    [
        ("r00030", "r00000", "1", {"MIGRATION_MAX_CONCURRENT": "1"}),
        ("r00030", "r00000", "1", {"MIGRATION_EVENTS_INSERT_BATCH_SIZE": "2"}),
        # The second reader begins at the end of the stream.
        ("r00110", "r00030", "2", {}),
    ],
)
@pytest.mark.variants(1)
def test_an_edit_of_a_row_that_a_larger_start_sent_is_kept(
    row_id: str, first_held: str, readers: str, later: Dict[str, str], tmp_path: Path
) -> None:
    with living(tmp_path, rows=120) as w:
        killed_at_batch(w, row_id, first_held, "--read-streams", readers)
        dataset = w.dest.objects("dataset")[0]["id"]
        theirs = edit(w.dest, DATASET, dataset, row_id)
        end = run(w.sandbox, w.root, *COMMAND, **{**PAGES, **later})
        assert (end.code, edited(w.dest, DATASET, dataset)) == (1, [theirs]), end.last_words
        assert len(w.dest.rows(DATASET, dataset)) == 120
        assert [found["count"] for found in findings(w.root, "row_differs")] == [1]
