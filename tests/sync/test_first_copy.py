"""The first copy of --since-last is compared as any copy is; a sync only on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator, List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import report, runs
from tests.support.row_runs import World, call
from tests.support.syncs import DATASET, equal, holder, later, living, row, twin


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with living(tmp_path) as world:
        yield world


def start(w: World, *args: str) -> int:
    later(w, 3600)
    return call(w, "migrate_all", "--since-last", *args, MIGRATION_VERIFY_WAIT="0")


def drop_inserts_with(w: World, row_id: str) -> None:
    """The destination accepts the inserts that hold a row and keeps nothing of them."""

    def accept(method: str, path: str, raw: bytes) -> Optional[Answer]:
        if method != "POST" or path != "/logs3" or row_id.encode() not in raw:
            return None
        ids = [sent["id"] for sent in json.loads(raw)["rows"]]
        return Answer(200, json.dumps({"ids": ids, "xact_id": "1000192656880881099"}).encode())

    w.sandbox.refuse = accept


@pytest.mark.parametrize("depth", [[], ["--counts"], ["--full"]])
@pytest.mark.variants(1)
def test_rows_that_were_accepted_and_dropped_are_missing_for_the_verification(
    depth: list, w: World
) -> None:
    drop_inserts_with(w, "r00003")
    assert start(w, *depth) == 1
    result = report(w.root)["verification"]
    assert (result["equal"], result["arrived"]) == (False, False)
    missing = [entry for entry in result["differences"] if entry["outcome"] == "missing"]
    assert missing != []
    # The next sync does not end with 0 while they are missing, and names what brings them.
    w.sandbox.refuse = None
    assert start(w) == 1
    (command,) = report(w.root)["next_commands"]
    assert command.startswith("bin/migrate-all --new-run "), command
    assert call(w, "migrate_all", "--new-run") == 0
    assert (start(w), equal(w)) == (0, True)


def test_a_sync_compares_only_on_request(w: World) -> None:
    assert start(w) == 0
    first = report(w.root)["verification"]
    assert first["equal"] is True
    w.source.insert(DATASET, holder(w, DATASET), [row("new")])
    w.sandbox.clear_requests()
    assert start(w) == 0
    asked = [request for request in w.sandbox.requests if request.path == "/btql"]
    assert len(asked) < 16  # one of them counts what the sync delivered
    w.dest.insert(DATASET, twin(w, DATASET), [{"id": "new", "_object_delete": True}])
    assert start(w) == 0
    assert start(w, "--counts") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "phase 10 of 10: verify: not in a sync; --counts, --sample N or --full compares"),
        (["--no-verify"], "phase 10 of 10: verify: left out by --no-verify"),
        (["--dry-run"], "phase 10 of 10: verify: not in a dry run"),
        (["--counts"], "phase 10 of 10: verify"),
    ],
)
@pytest.mark.variants(1)
def test_a_start_that_compares_nothing_says_so(words: List[str], said: str, w: World) -> None:
    assert start(w) == 0
    start(w, *words)
    log = (runs(w.root)[-1] / "run.log").read_text(encoding="utf-8")
    (*_, line) = [line for line in log.splitlines() if ": verify" in line]
    assert line.endswith(said), line
