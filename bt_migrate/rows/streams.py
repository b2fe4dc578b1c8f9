"""The streams of rows, and the state of a stream while its rows are copied.

This module does not know how rows are read, encoded or written.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from bt_migrate.api.btql import Bounds
from bt_migrate.errors import ApiError
from bt_migrate.model.notes import FindingCounts, print_of_all
from bt_migrate.model.resources import ROW_KINDS, RowKind
from bt_migrate.objects.catalog import Catalog
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_files import SEEN_ENDING, STATE_ENDING
from bt_migrate.state.seen_rows import NO_LIMIT, SeenRows
from bt_migrate.state.sessions import was_killed
from bt_migrate.state.stream_state import TRIED_AGAIN, KeyRange, StreamState, save_streams
from bt_migrate.state.sync_marks import Round, mark_now


@dataclass(frozen=True)
class ShardSlice:
    """What a shard copies of an object: the rows with keys above `after` and up to `end`."""

    after: Optional[str]
    end: str
    # no other shard copies rows of the object
    whole: bool
    # when the shards were planned, unix seconds of the source's clock
    mark: int
    # the destination object was empty when the shards were planned; otherwise its rows with keys up
    # to `before` existed then
    new: bool
    before: str


@dataclass(frozen=True)
class RowStream:
    """The rows of one object that are to be copied."""

    kind: RowKind
    project: str
    source_id: str
    dest_id: str
    name: str
    # this run created the destination object, so it held no rows before
    fresh: bool
    # set if a shard copies only this part
    part: Optional[ShardSlice] = None
    # how many of the rows to read the source counts (None: it does not count), and when, in unix
    # seconds of its clock
    rows: Optional[int] = None
    counted_s: float = 0.0
    # of the source, in ascending order: earlier states that are written before the copy
    versions: Tuple[int, ...] = ()
    # versions of its rows that an `origin` elsewhere names: (row id, transaction of the source)
    named: FrozenSet[Tuple[str, int]] = frozenset()
    # every delivery is recorded, since versions of rows are named
    recorded: bool = False


def planned_stream(kind_name: str, planned: Mapping[str, Any]) -> RowStream:
    """Returns the stream of an object of a plan (see `plan_rows`) that is in the destination."""
    place = (planned["project"], planned["id"], planned["dest_id"], planned["name"])
    return RowStream(ROW_KINDS[kind_name], *place, fresh=False)


def bounds_of(catalog: Catalog, kind: RowKind) -> Bounds:
    """Returns the date window of a kind.

    Logs are selected row by row, experiments as a whole, datasets always.
    """
    settings = catalog.settings
    if kind is ROW_KINDS["logs"]:
        return Bounds(settings.created_after, settings.created_before)
    return Bounds()


class StreamCopy:
    """One object while its rows are copied: checkpoint, delivered rows, and its error.

    Made by `open_copy`. A sync writes its files only if it is `touched`: if it was incomplete or
    had new rows.
    """

    def __init__(
        self, stream: RowStream, run: RunDirectory, state: StreamState, *, touched: bool
    ) -> None:
        self.stream = stream
        self.run = run
        self.state = state
        self.touched = touched
        self.error: Optional[ApiError] = None
        # rows that failed in an earlier sync
        self.tried_again: List[str] = []
        # they are so many that they are reported as a whole
        self.failed_as_one = False
        # an earlier state of the object is being written: see `replay`
        self.replays = False
        # an earlier state lacks attachments that could not be copied, and so do the later ones
        self.lacks_attachments = False
        # the destination refused rows of the state that is being written
        self.lacks_rows = False
        # a sync delivers the rows, and looks at its end whether the destination shows them
        self.confirms = False
        # rows of earlier states that stay as somebody changed them in the destination
        self.kept_rows: Set[str] = set()
        # an earlier start may have sent rows of the object
        self.continues = False
        # it may have done so without recording it: see `note_doubtful`
        self.doubtful = False
        self._seen: Optional[SeenRows] = None
        self._resuming: Optional[bool] = None
        self._lock = threading.Lock()

    @property
    def above(self) -> Optional[int]:
        """The transaction after which rows are read; None in a full copy."""
        return self.state.sync.above

    @property
    def is_at_start(self) -> bool:
        """Whether none of the rows to read has been read."""
        first, *others = self.state.slices
        return not others and first.after is None and not self.rows_read

    @property
    def rows_read(self) -> int:
        """How many of the rows to read have been read: of all, or in a sync of the new ones."""
        state = self.state
        return state.copy.read if self.above is None else state.sync.read_new

    @property
    def seen(self) -> SeenRows:
        with self._lock:
            if self._seen is None:
                self._seen = SeenRows(self.state.seen_path)
            return self._seen

    def held_before(self, ids: Sequence[str]) -> Dict[str, bytes]:
        """Returns row id -> digest of those rows that the destination held before this copy."""
        compared = self.state.copy.compared
        return self.seen.before(self.stream.source_id, ids) if compared else {}

    def note_kept(self, row_id: str) -> None:
        """Note a row that stays as it is in the destination, if an earlier state is written."""
        if self.replays:
            self.kept_rows.add(row_id)

    @property
    def resuming(self) -> bool:
        """Whether rows were recorded before."""
        if self._resuming is None:
            self._resuming = self.seen.holds_rows()
        return self._resuming

    def read_again(self) -> None:
        """Reset the stream to its start, because rows were not shown.

        Rows that arrived are found.
        """
        with self.state.lock:
            self.state.slices = [KeyRange(self.start_key, self.end_key)]
            self.state.counts = dict.fromkeys(self.state.counts, 0)
            self.state.findings = []
            self.state.copy.read = 0
            self.state.sync.read_new = 0
            self.state.save()
        self._resuming = None

    @property
    def start_key(self) -> Optional[str]:
        """Key after which the rows to read begin, None for the first one."""
        return self.stream.part.after if self.stream.part else None

    @property
    def end_key(self) -> Optional[str]:
        """Last key of the rows to read, None for the end of the stream."""
        return self.stream.part.end if self.stream.part else None

    def finish(self, seconds: float) -> None:
        """Set what the checkpoint says at the end."""
        self.touched = self.touched or self.error is not None
        state = self.state
        with state.lock:
            state.seconds += seconds
            state.error = str(self.error) if self.error else ""
            state.done = all(part.done for part in state.slices) and not self.error
            if not self.touched:
                return
            if self.tried_again and state.done:
                self.seen.forget_failed(self.stream.source_id, self.tried_again, state.sync.round)
            state.waiting = len(self.seen.deferred())
            state.failed = self.seen.all_failed()
            state.failed_print = self.print_of_failed() if state.failed > TRIED_AGAIN else ""
            state.sync.unconfirmed = self.seen.all_unconfirmed()

    def print_of_failed(self) -> str:
        """Returns a fingerprint of all rows that did not arrive whole."""
        return print_of_all(
            self.seen.failed(self.stream.source_id, self.state.sync.round + 1, NO_LIMIT)
        )

    def close(self) -> None:
        """Close the files, after the checkpoint was written."""
        if self.touched and self.state.done:
            self.seen.forget_before()
        self.run.close_stream(self.state, written=self.touched)
        self.run.live.end(self.stream.source_id)
        if self._seen is not None:
            self._seen.close()


def open_copy(catalog: Catalog, stream: RowStream, round_: Optional[Round] = None) -> StreamCopy:
    """Open the checkpoint of a stream: for a full copy, or in a sync for what is new.

    Raises StateError.
    """
    path = catalog.run.stream_path(stream.kind.folder, stream.project, stream.source_id)
    file = path.with_name(path.name + STATE_ENDING)
    header = {
        "kind": stream.kind.name,
        "project": stream.project,
        "name": stream.name,
        "source_id": stream.source_id,
    }
    catalog.run.open_stream(file)
    state = StreamState.open(file, header)
    if state.header.get("dest_id", stream.dest_id) != stream.dest_id:
        _forget_other_copy(path, file)
        state = StreamState.open(file, header)
    state.header["dest_id"] = stream.dest_id
    continues = file.exists() or was_killed(catalog.run.record.sessions)
    if not file.exists():
        _begin_copy(catalog, state, stream)
    if state.copy.made and not stream.fresh:
        stream = replace(stream, fresh=True)
    state.copy.made = stream.fresh
    was_behind = not state.done
    if round_:
        state.begin_round(round_.number, round_.above)
    state.note_seen()
    if stream.recorded and catalog.versions.rows:
        catalog.versions.rows.note(stream.source_id, state.seen_path)
    copy = StreamCopy(stream, catalog.run, state, touched=was_behind or state.sync.above is None)
    copy.continues = continues
    copy.confirms = round_ is not None
    return copy


def _forget_other_copy(path: Path, file: Path) -> None:
    """Delete the files of the stream, which are about another destination object."""
    for old_file in (file, *path.parent.glob(f"{path.name}{SEEN_ENDING}*")):
        old_file.unlink()


def _begin_copy(catalog: Catalog, state: StreamState, stream: RowStream) -> None:
    if stream.part:
        state.copy.began = mark_now(stream.part.mark)
        state.copy.compared = stream.part.new
        state.slices = [KeyRange(stream.part.after, stream.part.end)]
    else:
        state.copy.began = mark_now(stream.counted_s or catalog.source.clock.mark_s())


def close_copies(members: Sequence[StreamCopy], seconds: float) -> None:
    """Record how streams that were read together ended, after `seconds`."""
    for member in members:
        member.finish(seconds / len(members))
    save_members(members)
    for member in members:
        member.close()


def save_members(members: Iterable[StreamCopy]) -> None:
    """Write the checkpoints of streams that are read together."""
    save_streams([member.state for member in members if member.touched])


@dataclass
class PageEnd:
    """What a page adds besides its sent rows, by source object: counts and findings.

    `newest`: the newest transaction of its rows.
    """

    end_key: str
    newest: int = 0
    counts: Dict[str, Counter[str]] = field(default_factory=dict)
    notes: Dict[str, FindingCounts] = field(default_factory=dict)

    def of(self, object_id: str) -> Tuple[Counter[str], FindingCounts]:
        if object_id not in self.counts:
            self.counts[object_id] = Counter()
            self.notes[object_id] = FindingCounts()
        return self.counts[object_id], self.notes[object_id]
