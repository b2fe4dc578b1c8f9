"""SQLite files of a run: delivered rows and copied attachments."""

from __future__ import annotations

import contextlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, Iterator

import pytest

from bt_migrate.errors import StateError
from bt_migrate.state.copied_attachments import CopiedAttachments
from bt_migrate.state.seen_rows import SeenRows
from tests.support.orgs import TIME_LIMIT_S
from tests.support.run_state import mode, python


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[SeenRows]:
    rows = SeenRows(tmp_path / "new" / "x_seen.sqlite3")
    yield rows
    rows.close()


def test_rows_are_remembered_by_object_and_id_with_their_transaction(seen: SeenRows) -> None:
    empty = seen.holds_rows()
    seen.record(
        [
            ("o1", "a", 1, "created", 0),
            ("o1", "b", 2**63 - 1, "found", 0),
            ("o2", "a", 3, "created", 0),
        ]
    )
    seen.record([("o1", "a", 5, "updated", 0)])
    assert (
        empty,
        seen.holds_rows(),
        seen.outcomes_of("o1", ["a", "b", "c"]),
        seen.outcomes_of("o2", ["a", "b"]),
    ) == (
        False,
        True,
        {"a": (5, "updated"), "b": (2**63 - 1, "found")},
        {"a": (3, "created")},
    )


@pytest.mark.parametrize("rows", [49, 50, 51, 120])
def test_the_last_record_of_a_row_counts_in_a_batch_of_any_size(seen: SeenRows, rows: int) -> None:
    first = [("o", f"row {number}", number, "created", 7) for number in range(rows)]
    again = [("o", f"row {rows - 1}", 1000, "updated", 8), ("o", "row 0", 1000, "updated", 8)]
    seen.record([*first, *again])
    ids = [row_id for _, row_id, *_ in first]
    expected = {row_id: (xact, outcome) for _, row_id, xact, outcome, _ in [*first, *again]}
    assert (seen.outcomes_of("o", ids), seen.count_held("o")) == (expected, rows)


def test_no_file_is_created_without_rows(seen: SeenRows) -> None:
    answers = (
        seen.holds_rows(),
        seen.outcomes_of("o", ["a"]),
        seen.before("o", ["a"]),
        seen.deferred(),
    )
    seen.forget_before()
    seen.close()
    assert (answers, seen.path.parent.exists()) == ((False, {}, {}, []), False)


def test_what_an_earlier_process_remembered_is_known_at_once(seen: SeenRows) -> None:
    seen.record([("o", "a", 1, "created", 0)])
    seen.close()
    again = SeenRows(seen.path)
    answers = (again.holds_rows(), again.outcomes_of("o", ["a"]))
    again.close()
    assert answers == (True, {"a": (1, "created")})


def test_many_threads_remember_at_the_same_time(seen: SeenRows) -> None:
    start = threading.Barrier(8)

    def remember(thread: int) -> int:
        start.wait()
        for number in range(20):
            entry = f"{thread}-{number}"
            seen.record(
                [("o", entry, 1, "created", 0)], [("o", entry, "origin", "datasets", "r", "{}")]
            )
            seen.record_before([("o", entry, entry.encode())])
            seen.forget_deferred([("o", entry, "origin")])
        return len(seen.outcomes_of("o", [f"{thread}-{number}" for number in range(20)]))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(remember, range(8)))
    ids = [f"{thread}-{number}" for thread in range(8) for number in range(20)]
    assert (
        found,
        len(seen.outcomes_of("o", ids)),
        len(seen.before("o", ids)),
        seen.deferred(),
    ) == ([20] * 8, 160, 160, [])


@pytest.mark.parametrize(
    "row_id", ["plain", "Zoë 日本 🙂", "with\x00nul", "it's", "", "x" * 10_000]
)
def test_any_row_id_is_remembered(seen: SeenRows, row_id: str) -> None:
    seen.record(
        [("o", row_id, 1, "created", 0)], [("o", row_id, "origin", "datasets", "ref", "{}")]
    )
    seen.record_before([("o", row_id, b"digest")])
    assert (seen.outcomes_of("o", [row_id]), seen.before("o", [row_id]), seen.deferred()) == (
        {row_id: (1, "created")},
        {row_id: b"digest"},
        [("o", row_id, "origin", "datasets", "ref", "{}")],
    )


def test_thousands_of_ids_are_looked_up_at_once(seen: SeenRows) -> None:
    ids = [str(number) for number in range(2500)]
    seen.record([("o", item, 1, "created", 0) for item in ids])
    seen.record_before([("o", entry, entry.encode()) for entry in ids])
    assert (len(seen.outcomes_of("o", ids)), seen.before("o", ids)) == (
        2500,
        {object_id: object_id.encode() for object_id in ids},
    )


def test_digests_of_earlier_destination_rows_can_be_removed(seen: SeenRows) -> None:
    seen.record_before([("o", "a", b"1")])
    seen.forget_before()
    assert seen.before("o", ["a"]) == {}


def test_waiting_references_are_kept_until_each_is_removed(seen: SeenRows) -> None:
    waiting = [
        ("o", "b", "origin", "datasets", "r1", "{}"),
        ("o", "a", "metadata.prompt.id", "functions,prompts", "r2", ""),
    ]
    seen.record([], [*waiting, waiting[0]])
    before = seen.deferred()
    seen.forget_deferred([("o", "b", "origin")])
    assert (before, seen.deferred()) == ([waiting[1], waiting[0]], [waiting[1]])


RECORD_FOR_EVER = """
import sys
from pathlib import Path
from bt_migrate.state.seen_rows import SeenRows
seen = SeenRows(Path(sys.argv[1]))
number = 0
while True:
    seen.record([("o", f"{number}-{part}", 1, "created", 0) for part in range(10)])
    print(number, flush=True)
    number += 1
"""


def test_rows_that_were_committed_survive_a_kill_and_batches_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "x_seen.sqlite3"
    writer = python(RECORD_FOR_EVER, path)
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.readline()
    writer.kill()
    told = 19 + len([line for line in writer.communicate()[0].splitlines() if line.strip()])
    seen = SeenRows(path)
    counts = [
        len(seen.outcomes_of("o", [f"{number}-{part}" for part in range(10)]))
        for number in range(told + 2)
    ]
    seen.close()
    assert (set(counts[: told + 1]), set(counts) <= {0, 10}) == ({10}, True)


@pytest.mark.parametrize(
    "content", [b"this is no database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 2000]
)
def test_a_damaged_database_stops_the_run_and_is_named(tmp_path: Path, content: bytes) -> None:
    for opened in (SeenRows, CopiedAttachments):
        path = tmp_path / f"{opened.__name__}.sqlite3"
        path.write_bytes(content)
        with pytest.raises(StateError, match=f"^{re.escape(str(path))}: cannot be used "):
            opened(path)


NO_ROOM = """
import resource, sys
from pathlib import Path
from bt_migrate.errors import StateError
from bt_migrate.state.copied_attachments import CopiedAttachments
from bt_migrate.state.seen_rows import SeenRows
path = Path(sys.argv[2])
store = {"SeenRows": SeenRows, "CopiedAttachments": CopiedAttachments}[sys.argv[1]](path)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))  # as a full disk: a write beyond it fails
try:
    for number in range(100000):
        if sys.argv[1] == "SeenRows":
            store.record([("o", f"{number}-" + "x" * 1000, 1, "created", 0)])
        else:
            store.record(f"{number}-" + "x" * 1000, "dest", 1, "sha")
except StateError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("store", ["SeenRows", "CopiedAttachments"])
def test_a_database_without_room_is_one_line_that_names_it(tmp_path: Path, store: str) -> None:
    path = tmp_path / "x.sqlite3"
    out, err = python(NO_ROOM, store, path).communicate(timeout=TIME_LIMIT_S)
    assert (out.startswith(f"{path}: cannot be used ("), len(out.splitlines()), err) == (
        True,
        1,
        "",
    )


def test_attachments_that_were_copied_are_known_to_the_next_process(tmp_path: Path) -> None:
    copied = CopiedAttachments(tmp_path / "attachments.sqlite3")
    nothing = copied.totals()
    copied.record("k1", "n1", 10, "sha1")
    copied.record("k2", "n2", 5, "sha2")
    copied.record("k1", "n1", 10, "sha1")
    again = CopiedAttachments(tmp_path / "attachments.sqlite3")
    assert (nothing, again.totals(), again.has("k1"), again.has("n1")) == (
        (0, 0),
        (2, 15),
        True,
        False,
    )


COPY_MORE = """
import sys
from pathlib import Path
from bt_migrate.state.copied_attachments import CopiedAttachments
copied = CopiedAttachments(Path(sys.argv[1]))
for number in range(40):
    copied.record(sys.argv[2] + str(number), "there", 1, "0" * 64)
copied.close()
"""


def test_a_store_opened_twice_in_a_process_keeps_its_locks_and_records(
    tmp_path: Path,
) -> None:
    """Closing a file drops its process's locks on it; SQLite's own locks were once lost so."""
    path = tmp_path / "attachments.sqlite3"
    first = CopiedAttachments(path)
    for number in range(4):
        again = CopiedAttachments(path)
        again.record(f"own {number}", "there", 1, "0" * 64)
        again.close()
        ended = python(COPY_MORE, path, f"theirs {number} ")
        assert ended.communicate()[1] == ""
        assert first.totals() == (41 * (number + 1), 41 * (number + 1))
    first.close()
    assert mode(path) == 0o600


def test_many_threads_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    """One thread records the first rows while others look a version up in the same file."""
    for number in range(20):
        path = tmp_path / f"{number}.sqlite"

        def recorded(worker: int, path: Path = path) -> Dict[str, int]:
            with contextlib.closing(SeenRows(path)) as seen:
                seen.record([("object", str(worker), 1, "created", 2)])
                return seen.dest_xacts("object", [str(worker)])

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(recorded, range(8)))
        assert found == [{str(worker): 2} for worker in range(8)]
