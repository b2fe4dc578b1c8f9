"""stream_state."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from bt_migrate.model.outcomes import OUTCOMES, UPDATED
from bt_migrate.state.files import FORMAT, json_lines, read_json, write_files

# -- rows


class StreamState:
    """Checkpoint of the rows of one object. `slices`: parts of the key range, each with the keys between which rows have no outcome
    yet: those above `after`, up to `end` (None: to the end of the stream).

    `after` moves up; `end` moves down while the slice is read from both ends. Safe for many threads: counts, notes and a slice's
    keys move together under the lock.

    In a round of a sync there is one slice of all rows written after a transaction (`above`); counts and notes are of the round.
    """

    COUNTS = ("fetched", *OUTCOMES, "bytes")

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.lock = threading.RLock()
        data = read_json(path) if path.exists() else {}
        self.header = {
            **data.get("header", {}),
            **header,
        }  # kind, project, name, source_id, dest_id
        self.slices: List[Dict[str, Any]] = data.get("slices") or [
            {"after": None, "end": None, "done": False}
        ]
        self.counts: Dict[str, int] = {
            name: data.get("counts", {}).get(name, 0) for name in self.COUNTS
        }
        self.findings: List[Dict[str, Any]] = data.get("findings", [])
        self.done: bool = data.get("done", False)
        self.compared: bool = data.get(
            "compared", False
        )  # the destination's rows from before this run are known
        self.before_key: Optional[str] = data.get(
            "before_key"
        )  # the last of these: rows of this run come behind it
        self.error: str = data.get("error", "")
        self.seconds: float = data.get("seconds", 0.0)
        self.waiting: int = data.get("waiting", 0)  # rows that wait for an object to exist
        self.failed: int = data.get(
            "failed", 0
        )  # rows that did not arrive whole: each sync tries them again
        self.began: int = data.get(
            "began", 0
        )  # transaction: what the source wrote after it may be missing; 0: the run's start
        self.round: int = data.get(
            "round", 0
        )  # of the sync that last had rows of it; 0: the copy of everything
        self.delivered_until: int = data.get(
            "delivered_until", 0
        )  # unix seconds of the destination: rows of that copy are older
        # rows that were there before the run and were written to all the same; earlier versions kept one count
        self.deleted: int = data.get(
            "deleted", 0
        )  # rows that were gone from the source, in this round
        self.others: int = data.get(
            "others", 0
        )  # rows of the destination that the source does not have and that are not ours to delete
        self.overwritten: int = data.get("overwritten", self.counts[UPDATED])

    @property
    def copied(self) -> bool:
        """Whether the copy of everything came to its end: what is missing is newer than `above`, or than the mark of the run."""
        return self.done or "above" in self.slices[0]

    def begin_round(self, number: int, above: int) -> None:
        """Enter a round, in memory. What an earlier one left behind is still to come: the lower of both marks counts."""
        if self.round != number:
            if not self.done and self.copied:
                above = min(above, self.slices[0]["above"])
            if self.copied:
                self.slices, self.done = (
                    [{"after": None, "end": None, "done": False, "above": above}],
                    False,
                )
            self.round, self.counts, self.findings = number, dict.fromkeys(self.COUNTS, 0), []
            self.error, self.seconds, self.deleted = "", 0.0, 0

    def catch_up(self, above: int) -> None:
        """After the copy of everything: what was written behind its back."""
        self.slices, self.done = (
            [{"after": None, "end": None, "done": False, "above": above}],
            False,
        )

    def content(self) -> Dict[str, Any]:
        names = (
            "header", "slices", "counts", "findings", "done", "compared", "before_key", "error", "seconds", "waiting",
            "failed", "began", "round", "delivered_until", "overwritten", "deleted", "others",
        )  # fmt: skip
        value = {"format": FORMAT, **{name: getattr(self, name) for name in names}}
        return {**value, "pagination_key": self.slices[0]["after"]}

    def save(self) -> None:
        save_streams([self])

    def sibling(self, ending: str) -> Path:
        """Path of another file of the stream, such as `_seen.sqlite3`."""
        return self.path.with_name(self.path.name.replace("_state.json", ending))


def save_streams(states: Sequence[StreamState]) -> None:
    """Write the checkpoints of streams that are read together."""
    with contextlib.ExitStack() as held:
        for state in states:
            held.enter_context(state.lock)
        write_files([(state.path, json_lines(state.content())) for state in states])
