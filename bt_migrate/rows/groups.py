"""Decides which streams are read together: up to 25 small objects with one query a page.

A large object is read alone. Streams are counted before they are grouped; a group ends once as many
rows were read as were counted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.api.btql import MAX_LIMIT, OBJECTS_PER_QUERY
from bt_migrate.model.portions import portions
from bt_migrate.model.resources import ROW_KINDS, RowKind
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.count import RowCounts, count_by_object
from bt_migrate.rows.facets import learn_facets, learn_facets_of_copies
from bt_migrate.rows.streams import RowStream, bounds_of
from bt_migrate.state.stream_state import StreamState
from bt_migrate.state.sync_marks import Round

# Rows of a group. Its pages are read one after the other, so larger groups would take longer.
ROWS_PER_GROUP = 5 * MAX_LIMIT


# assumption: several_objects_in_one_query
def groups(streams: Sequence[RowStream], readers: int = 1) -> Iterator[List[RowStream]]:
    """Yields groups of streams to read together, in their order.

    With several `readers` of slices, a stream of more than a page, or one of few streams, is read
    alone, so that it can be read in slices. A slice of a shard is always read alone.
    """
    if readers > 1 and len(streams) < readers:
        yield from ([stream] for stream in streams)
        return
    most = ROWS_PER_GROUP if readers == 1 else MAX_LIMIT
    together: List[RowStream] = []
    rows = 0
    for stream in streams:
        size = _size_in_group(stream, most)
        if size > most:
            yield [stream]
            continue
        full = rows + size > most or len(together) == OBJECTS_PER_QUERY
        if together and (full or together[-1].kind is not stream.kind):
            yield together
            together = []
            rows = 0
        together.append(stream)
        rows += size
    if together:
        yield together


def _size_in_group(stream: RowStream, most: int) -> int:
    """Returns the rows that the stream adds to a group; more than `most` if it is read alone."""
    if stream.part and not stream.part.whole:
        return most + 1
    if stream.rows is None:
        # Not counted: logs may be large; experiments and datasets are grouped, 25 at a time.
        return most + 1 if stream.kind is ROW_KINDS["logs"] else most // OBJECTS_PER_QUERY
    return stream.rows


def counted_streams(
    catalog: Catalog, counts: RowCounts, streams: Sequence[RowStream]
) -> List[RowStream]:
    """Returns the streams with their row counts; a slice of a shard is counted by itself."""
    by_bounds: Dict[Tuple[RowKind, Optional[str], Optional[str]], List[RowStream]] = {}
    for stream in streams:
        part = stream.part
        where = (stream.kind, part.after, part.end) if part else (stream.kind, None, None)
        by_bounds.setdefault(where, []).append(stream)
    counted: Dict[str, RowStream] = {}
    for (kind, after, end), alike in by_bounds.items():
        ids = [stream.source_id for stream in alike]
        if len(ids) == 1 and end is None and not counts.holds(kind.name, ids[0]):
            _ask_at_once(catalog, counts, kind, ids)
        if end is None:
            rows_of = counts.of(catalog, kind.name, ids)
        else:
            bounds = replace(bounds_of(catalog, kind), after_key=after, end_key=end)
            rows_of = count_by_object(catalog, catalog.source, kind.name, ids, bounds)
        held = [object_id for object_id in ids if rows_of[object_id].rows != 0]
        learn_facets(catalog.source, kind.name, held, bounds_of(catalog, kind))
        for stream in alike:
            rows, counted_s = rows_of[stream.source_id]
            counted[stream.source_id] = replace(stream, rows=rows, counted_s=counted_s)
    return [counted[stream.source_id] for stream in streams]


def _ask_at_once(
    catalog: Catalog, counts: RowCounts, kind: RowKind, object_ids: Sequence[str]
) -> None:
    """Count a single object, which may be large, and find out about its facets meanwhile."""
    bounds = bounds_of(catalog, kind)
    count = partial(counts.of, catalog, kind.name, object_ids)
    learn = partial(learn_facets, catalog.source, kind.name, object_ids, bounds)
    catalog.lists.at_once(lambda ask: ask(), (count, learn))


def round_groups(
    catalog: Catalog, counts: RowCounts, streams: Sequence[RowStream], round_: Round
) -> Iterator[List[RowStream]]:
    """Yields groups of streams of a sync.

    Complete streams are read together, incomplete ones alone, new ones as in a first copy.
    """
    states = {
        (state.header["kind"], state.header["source_id"]): state
        for state in catalog.run.all_streams()
    }
    by_above: Dict[int, List[RowStream]] = {}
    new: List[RowStream] = []
    for stream in streams:
        state = states.get((stream.kind.name, stream.source_id))
        if state is None or not _is_copied(state, stream):
            new.append(stream)
        elif not (
            state.done and state.sync.round == round_.number
        ):  # else an earlier process read it
            by_above.setdefault(_above(state, round_), []).append(stream)
    for above, alike in by_above.items():
        counted = _counted_above(catalog, alike, above)
        size = OBJECTS_PER_QUERY if above == round_.above else 1
        yield from portions(counted, size)
    yield from groups(counted_streams(catalog, counts, new), catalog.settings.read_streams)


def _is_copied(state: StreamState, stream: RowStream) -> bool:
    return state.copied and state.header.get("dest_id") == stream.dest_id


def _above(state: StreamState, round_: Round) -> int:
    """Returns the transaction after which this sync reads the stream."""
    if state.done or state.sync.above is None:
        return round_.above
    return min(state.sync.above, round_.above)


def _counted_above(catalog: Catalog, streams: Sequence[RowStream], above: int) -> List[RowStream]:
    kind = streams[0].kind
    bounds = replace(bounds_of(catalog, kind), after_xact=above)
    ids = [stream.source_id for stream in streams]
    counted = count_by_object(catalog, catalog.source, kind.name, ids, bounds)
    changed = [stream for stream in streams if counted[stream.source_id].rows != 0]
    source_ids = [stream.source_id for stream in changed]
    dest_ids = [stream.dest_id for stream in changed]
    learn_facets(catalog.source, kind.name, source_ids, bounds)
    whole = bounds_of(catalog, kind)
    learn_facets_of_copies(catalog.source, catalog.dest, kind.name, dest_ids, whole)
    return [
        replace(
            stream, rows=counted[stream.source_id].rows, counted_s=counted[stream.source_id].at_s
        )
        for stream in streams
    ]
