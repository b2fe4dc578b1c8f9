"""The streams of rows: what is read together, and one object's memory while its rows are copied.

Knows nothing of what is done with the rows.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.api.btql import OBJECTS_PER_QUERY, Bounds
from bt_migrate.errors import ApiError
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.resources import ROW_KINDS, RowKind
from bt_migrate.objects.catalog import Catalog
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.state.stream_state import KeyRange, StreamState, save_streams
from bt_migrate.state.sync_marks import Round, mark_now


@dataclass(frozen=True)
class ShardSlice:
    """What a shard takes of an object: the rows with keys above `after` and up to `end`, as they were planned at `mark`, unix seconds
    of the source. `whole`: no other shard takes rows of it. `new`: the destination's object was empty; else its rows with keys up to
    `before` were there.
    """

    after: Optional[str]
    end: str
    whole: bool
    mark: int
    new: bool
    before: str


@dataclass(frozen=True)
class RowStream:
    """The rows of one object. `fresh`: this run made the destination object, so nothing was there before."""

    kind: RowKind
    project: str
    source_id: str
    dest_id: str
    name: str
    fresh: bool
    part: Optional[ShardSlice] = None  # of a shard


class StreamCopy:
    """One object while its rows are copied: its checkpoint, its seen rows, its notes.

    `began_s`: when its reading began, by the source's clock, if not now. `error` is what the API said of it, if it is lost. In a
    round nothing of it is written unless it is `touched`: rows of it came.
    """

    def __init__(
        self,
        catalog: Catalog,
        stream: RowStream,
        round_: Optional[Round] = None,
        *,
        began_s: Optional[float] = None,
    ) -> None:
        self.stream, self.run, self.round = stream, catalog.run, round_
        path = catalog.run.stream_path(stream.kind.folder, stream.project, stream.source_id)
        file = path.with_name(path.name + "_state.json")
        header = {"kind": stream.kind.name, "project": stream.project, "name": stream.name}
        catalog.run.open_stream(file)
        self.state = StreamState.open(file, {**header, "source_id": stream.source_id})
        if (
            self.state.header.get("dest_id", stream.dest_id) != stream.dest_id
        ):  # another object has taken its counterpart's place
            for one in (file, *path.parent.glob(path.name + "_seen.sqlite3*")):
                one.unlink()
            self.state = StreamState.open(file, {**header, "source_id": stream.source_id})
        self.state.header["dest_id"] = stream.dest_id
        if not file.exists():
            self.state.copy.began = mark_now(
                stream.part.mark if stream.part else began_s or catalog.source.clock.mark_s()
            )
            if stream.part:
                self.state.slices = [KeyRange(stream.part.after, stream.part.end)]
                self.state.copy.compared = stream.part.new
        if self.state.copy.made and not stream.fresh:
            self.stream = replace(stream, fresh=True)
        self.state.copy.made = self.stream.fresh
        was_behind = not self.state.done
        if round_:
            self.state.begin_round(round_.number, round_.above)
        self.state.note_seen()
        self.touched = self.above is None or was_behind
        self.error: Optional[ApiError] = None
        self.tried_again: List[str] = []  # rows that failed in an earlier round
        self._seen: Optional[SeenRows] = None
        self._resuming: Optional[bool] = None
        self._lock = threading.Lock()

    @property
    def above(self) -> Optional[int]:
        """The transaction after which rows are read; None while everything is copied."""
        return self.state.sync.above

    @property
    def seen(self) -> SeenRows:
        with self._lock:
            if self._seen is None:
                self._seen = SeenRows(self.state.sibling("_seen.sqlite3"))
            return self._seen

    @property
    def resuming(self) -> bool:
        """Whether rows were recorded before."""
        if self._resuming is None:
            self._resuming = self.seen.holds_rows()
        return self._resuming

    def _finish(self, seconds: float) -> None:
        """What the checkpoint says at the end."""
        self.touched = self.touched or self.error is not None
        state = self.state
        with state.lock:
            state.seconds += seconds
            state.error = str(self.error) if self.error else ""
            state.done = all(one.done for one in state.slices) and not self.error
            if self.touched:
                if self.tried_again and state.done:
                    self.seen.forget_failed(
                        self.stream.source_id, self.tried_again, state.sync.round
                    )
                state.waiting, state.failed = len(self.seen.deferred()), self.seen.all_failed()

    def _close(self) -> None:
        if self.touched and self.state.done:
            self.seen.forget_before()
        self.run.close_stream(self.state, written=self.touched)
        self.run.live.end(self.stream.source_id)
        if self._seen is not None:
            self._seen.close()

    @staticmethod
    def close_all(members: Sequence[StreamCopy], seconds: float) -> None:
        """Write down how what was read together ended, after so many seconds."""
        for member in members:
            member._finish(seconds / len(members))
        save_members(members)
        for member in members:
            member._close()


def save_members(members: Iterable[StreamCopy]) -> None:
    """Write the checkpoints of what is read together."""
    save_streams([member.state for member in members if member.touched])


@dataclass
class PageEnd:
    """What a page adds beside the outcomes of its sent rows, by source object: counts and notes."""

    end_key: str
    counts: Dict[str, Counter[str]] = field(default_factory=dict)
    notes: Dict[str, FindingCounts] = field(default_factory=dict)

    def of(self, object_id: str) -> Tuple[Counter[str], FindingCounts]:
        if object_id not in self.counts:
            self.counts[object_id], self.notes[object_id] = Counter(), FindingCounts()
        return self.counts[object_id], self.notes[object_id]


def groups(streams: Sequence[RowStream], readers: int = 1) -> Iterator[List[RowStream]]:
    """Streams that are read together: objects of one kind and project, up to 25 of them. Few objects are read alone, so that
    each can be read in slices; a slice of a shard is.
    """
    alone = readers > 1 and len(streams) < readers
    by_place: Dict[Tuple[str, str, str], List[RowStream]] = {}
    for stream in streams:
        alone_id = stream.source_id if stream.part and not stream.part.whole else ""
        by_place.setdefault((stream.kind.name, stream.project, alone_id), []).append(stream)
    for together in by_place.values():
        size = 1 if alone else OBJECTS_PER_QUERY
        yield from (together[start : start + size] for start in range(0, len(together), size))


def round_groups(
    catalog: Catalog, streams: Sequence[RowStream], round_: Round
) -> Iterator[List[RowStream]]:
    """The same in a round: what is complete is read together across projects, what is behind by itself, what is new as ever."""
    states = {
        (one.header["kind"], one.header["source_id"]): one for one in catalog.run.all_streams()
    }
    together: List[RowStream] = []
    new: List[RowStream] = []
    for stream in streams:
        state = states.get((stream.kind.name, stream.source_id))
        if state is None or not state.copied or state.header.get("dest_id") != stream.dest_id:
            new.append(stream)
        elif state.done and state.sync.round == round_.number:
            continue  # a process before this one came to its end
        elif state.done or (state.sync.above or 0) >= round_.above:
            together.append(stream)
        else:
            yield [stream]
    yield from (
        together[start : start + OBJECTS_PER_QUERY]
        for start in range(0, len(together), OBJECTS_PER_QUERY)
    )
    yield from groups(new, catalog.settings.read_streams)


def bounds_of(catalog: Catalog, kind: RowKind) -> Bounds:
    """The date window of a kind: logs are chosen row by row, experiments as a whole, datasets not at all."""
    settings = catalog.settings
    return (
        Bounds(settings.created_after, settings.created_before)
        if kind is ROW_KINDS["logs"]
        else Bounds()
    )
