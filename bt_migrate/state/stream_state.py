"""The checkpoint of one stream: `logs_state.json`, or `<object id>_state.json` for an experiment or
a dataset.

One part belongs to the copy of everything, another to the syncs after it. Knows nothing of how rows
are read or written.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from bt_migrate.errors import StateError
from bt_migrate.model.outcomes import OUTCOMES
from bt_migrate.state.files import FORMAT, damaged, json_lines, read_json, write_files
from bt_migrate.state.finding_shape import StreamHeader, check_note
from bt_migrate.state.records import (
    WHAT_TO_DO,
    ShapeError,
    check_part,
    has_type,
    record_fields,
    refuse_other_fields,
)
from bt_migrate.state.run_files import REFUSED_ENDING, SEEN_ENDING, STATE_ENDING

COUNTS = ("fetched", *OUTCOMES, "bytes")
# rows that failed in an earlier sync: how many are tried again before it counts whether they arrive
TRIED_AGAIN = 500


@dataclass
class KeyRange:
    """A range of pagination keys whose rows have no outcome yet: above `after`, up to `end` (None:
    to the end of the stream).

    `after` moves up. `end` moves down while the range is read from both ends.
    """

    after: Optional[str] = None
    end: Optional[str] = None
    done: bool = False


@dataclass
class CopyState:
    """What belongs to the copy of everything that a stream holds."""

    # the destination's rows from before this run were recorded
    compared: bool = False
    # key of the last of these rows: rows of this run have higher keys
    before_key: Optional[str] = None
    # transaction up to which everything is in the copy; 0: the start of the run
    began: int = 0
    # transactions of the destination in which this tool wrote rows: a row whose last transaction is
    # one of these is ours
    transactions: List[int] = field(default_factory=list)
    # rows that were in the destination before this run and were written to
    overwritten: int = 0
    # this run created the destination object
    made: bool = False
    # rows that were read, over all syncs that it took to copy everything
    read: int = 0
    # of earlier states, before the copy: "", begun, waits, done (see rows/replay.py)
    replay: str = ""

    def note_transactions(self, xacts: Iterable[int]) -> None:
        """Add transactions of the destination; 0 is none."""
        self.transactions += sorted(set(xacts).difference(self.transactions, (0,)))


@dataclass
class SyncState:
    """What belongs to the syncs after the copy. Counts and findings of the stream are those of
    `round`.
    """

    # number of the sync that last had rows of the stream; 0: the copy of everything
    round: int = 0
    # the stream's own sync mark, a transaction: rows written after it are to be read. None until
    # the copy is complete
    above: Optional[int] = None
    # rows that were read of those that are newer than `above`
    read_new: int = 0
    # newest transaction of the source on all pages that were read, 0 if that is not known
    newest: int = 0
    # since when the source counts no row, although it had some (unix seconds of its clock; 0: it
    # shows rows)
    silent_since: int = 0
    # rows that were delivered and that the destination has not shown yet
    unconfirmed: int = 0
    # rows that were deleted in the destination in this round, because they are gone from the source
    deleted: int = 0
    # rows that only the destination has, and that this tool did not insert
    others: int = 0
    # why the stream could not be read in the last sync ("" if it was), and since when the object is
    # absent from a good list (unix seconds of the source's clock; 0: no good list has shown that)
    unseen: str = ""
    absent_since: int = 0
    # the object was absent from good lists twice, some time apart
    gone: bool = False


@dataclass
class StreamState:
    """The checkpoint of the rows of one object. Safe for many threads: counts, findings and keys
    move together under the lock.

    In a sync `slices` is one range of all rows that were written after `sync.above`.
    """

    path: Path
    header: Dict[str, Any] = field(default_factory=dict)  # kind, project, name, source_id, dest_id
    slices: List[KeyRange] = field(default_factory=lambda: [KeyRange()])
    counts: Dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    findings: List[Dict[str, Any]] = field(default_factory=list)
    done: bool = False
    error: str = ""
    seconds: float = 0.0
    waiting: int = 0  # rows that wait for an object to exist
    failed: int = 0  # rows that did not arrive whole: each sync tries them again
    failed_print: str = ""  # of these rows, if they are more than TRIED_AGAIN
    copy: CopyState = field(default_factory=CopyState)
    sync: SyncState = field(default_factory=SyncState)
    lock: Any = field(default_factory=threading.RLock, compare=False, repr=False)

    @classmethod
    def open(cls, path: Path, header: Mapping[str, Any]) -> StreamState:
        """The checkpoint as its file says it, or a new one. `header` replaces what the file says.
        Raises StateError.
        """
        if not path.exists():
            return cls(path, dict(header))
        data = read_json(path)
        refuse_other_fields(path, data, {*cls(path).content(), *FORMER_FIELDS}, NEEDED_FIELDS)
        slices, above = _read_slices(path, data)
        state = cls(path, **record_fields(path, cls, data, OWN_FIELDS))
        state.header = {**state.header, **header}
        try:
            check_part(StreamHeader, state.header, "header")
            for note in state.findings:
                check_note(note)
        except ShapeError as error:
            raise damaged(path, error) from None
        state.counts = {name: state.counts.get(name, 0) for name in COUNTS}
        state.slices = slices or state.slices
        # Versions before this one counted the rows of the copy only.
        read = {"read": state.counts["fetched"]}
        state.copy = CopyState(**{**read, **record_fields(path, CopyState, data)})
        state.sync = SyncState(**{"above": above, **record_fields(path, SyncState, data)})
        return state

    @property
    def copied(self) -> bool:
        """Whether the copy of everything is complete: only rows that are newer than a sync mark can
        be missing.
        """
        return self.done or self.sync.above is not None

    @property
    def is_behind(self) -> bool:
        """Whether rows that were to be read are missing."""
        return not self.done and not self.sync.gone

    def begin_round(self, number: int, above: int) -> None:
        """Start a sync, in memory. A stream that is behind is read from its own mark, if that is
        lower than the mark of the run.
        """
        if self.sync.round == number:
            return
        if self.copied:
            behind = self.sync.above if not self.done else None
            self.catch_up(above if behind is None else min(above, behind))
        self.sync.round = number
        self.sync.deleted = 0
        self.sync.read_new = 0
        self.counts = dict.fromkeys(COUNTS, 0)
        self.findings = []
        self.error = ""
        self.seconds = 0.0

    def catch_up(self, above: int) -> None:
        """After the copy of everything: read what was written meanwhile to rows that it had already
        passed.
        """
        self.slices = [KeyRange()]
        self.done = False
        self.sync.above = above
        self.sync.read_new = 0

    def note_seen(self) -> None:
        """Record that the stream can be read again."""
        self.sync.unseen = ""
        self.sync.absent_since = 0
        self.sync.gone = False

    def content(self) -> Dict[str, Any]:
        """What the file holds."""
        own = {name: getattr(self, name) for name in OWN_FIELDS}
        slices = [asdict(item) for item in self.slices]
        return {
            "format": FORMAT,
            **own,
            "slices": slices,
            **asdict(self.copy),
            **asdict(self.sync),
        }

    def save(self) -> None:
        save_streams([self])

    @property
    def seen_path(self) -> Path:
        """The store of delivered rows, see `SeenRows`. It may not exist."""
        return self.sibling(SEEN_ENDING)

    @property
    def refused_path(self) -> Path:
        """The file of refused rows: id, size and reason of each. It may not exist."""
        return self.sibling(REFUSED_ENDING)

    def sibling(self, ending: str) -> Path:
        """Path of another file of the stream."""
        return self.path.with_name(self.path.name.replace(STATE_ENDING, ending))


NEEDED_FIELDS = ("header", "slices", "counts", "done")
# written by earlier versions, and not read
FORMER_FIELDS = ("pagination_key", "delivered_until")
OWN_FIELDS = (
    "header",
    "counts",
    "findings",
    "done",
    "error",
    "seconds",
    "waiting",
    "failed",
    "failed_print",
)


def _read_slices(path: Path, data: Dict[str, Any]) -> Tuple[List[KeyRange], Optional[int]]:
    """Returns (key ranges, sync mark). Earlier versions wrote the mark into the first range."""
    if not has_type(List[Dict[str, Any]], data["slices"]):
        raise StateError(f"{path}: slices is not a list of key ranges; {WHAT_TO_DO}")
    slices = [KeyRange(**record_fields(path, KeyRange, entry)) for entry in data["slices"]]
    return slices, next((item.get("above") for item in data["slices"]), None)


def save_streams(states: Sequence[StreamState]) -> None:
    """Write the checkpoints of streams that are read together."""
    with contextlib.ExitStack() as held:
        for state in states:
            held.enter_context(state.lock)
        write_files([(state.path, json_lines(state.content())) for state in states])
