"""Which objects with rows are compared, and what the run recorded about the copy of each."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Dict, Iterator, Tuple

from bt_migrate.api.transactions import xact_seconds
from bt_migrate.errors import ApiError
from bt_migrate.migration.context import Migration, ProjectPair
from bt_migrate.model.date_windows import instant
from bt_migrate.model.resource_table import PROJECTS
from bt_migrate.model.resources import BY_NAME, ROW_KINDS
from bt_migrate.rows.count import row_object_ids
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.stream_state import StreamState
from bt_migrate.state.sync_marks import mark_seconds
from bt_migrate.verify.pairs import ObjectPair


def object_pairs(migration: Migration, project: ProjectPair) -> Iterator[ObjectPair]:
    """Yields every object of the project that has rows and a counterpart."""
    streams = {
        (stream.header["kind"], stream.header["source_id"]): stream
        for stream in migration.run.all_streams()
    }
    copied = _copy_seconds(migration.run)
    for kind in ROW_KINDS:
        if not migration.settings.selects(kind):
            continue
        try:
            names = _object_names(migration, kind, project)
        except ApiError as error:
            if error.status >= 500:
                raise
            # The comparison of objects has already reported the refused list.
            continue
        target = kind if kind in BY_NAME else PROJECTS.name
        for source_id in row_object_ids(migration.catalog, kind, project.source["id"]):
            dest_id = migration.catalog.targets.resolve((target,), source_id)
            if dest_id is None:
                continue
            pair = ObjectPair(kind, project.name, names[source_id], source_id, dest_id)
            stream = streams.get((kind, source_id))
            yield _with_copy(pair, stream, copied, migration.run) if stream else pair


def _object_names(migration: Migration, kind: str, project: ProjectPair) -> Dict[str, str]:
    if kind not in BY_NAME:
        return {project.source["id"]: project.source["name"]}
    objects = migration.catalog.lists.source_objects(BY_NAME[kind], project.source["id"])
    return {obj["id"]: obj["name"] for obj in objects}


def _with_copy(
    pair: ObjectPair, stream: StreamState, copied: Tuple[float, float], run: RunDirectory
) -> ObjectPair:
    seen = stream.seen_path
    return replace(
        pair,
        copied=copied,
        seen=seen if seen.exists() else None,
        mark=_synced_until(run, stream),
        counts=dict(stream.counts),
        synced=stream.sync.round > 0,
        complete=stream.done,
    )


def _synced_until(run: RunDirectory, stream: StreamState) -> int:
    """Returns the second, by the source's clock, up to which the last sync read; or 0."""
    if stream.header["kind"] not in run.record.marks:
        return 0
    behind = None if stream.done else stream.sync.above
    return xact_seconds(behind) if behind else mark_seconds(run.record, stream.header["kind"])


def _copy_seconds(run: RunDirectory) -> Tuple[float, float]:
    """Returns the unix seconds at which copying began, and at which the last process ended it.

    The end is by the destination's clock if a process recorded it; it is now if none has ended yet.
    """
    sessions = run.record.sessions
    began = run.record.source_time or instant(run.record.created).timestamp()
    written = max((session.wrote_until or 0.0 for session in sessions), default=0.0)
    if written:
        return began, written
    ends = [session.ended for session in sessions if session.command != "verify"]
    ended = instant(ends[-1]).timestamp() if ends and ends[-1] else time.time()
    return began, ended
