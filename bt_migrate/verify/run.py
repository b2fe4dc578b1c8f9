"""Compare everything that was selected, keep the result with the run: a file for each outcome, ids and field paths only."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.api.transactions import xact_seconds
from bt_migrate.attachments.digests import AttachmentBytes
from bt_migrate.errors import ApiError, StateError
from bt_migrate.migration.context import Migration, ProjectPair
from bt_migrate.model.date_windows import instant
from bt_migrate.model.equality import merged
from bt_migrate.model.resources import (
    ACLS,
    BY_NAME,
    OBJECT_RESOURCES,
    PROJECT_SETTINGS,
    PROJECTS,
    ROW_KINDS,
    VIEWS,
    Resource,
)
from bt_migrate.objects.catalog import REFERABLE, Catalog, planned_id
from bt_migrate.objects.owned import (
    acl_owners,
    dest_owners,
    list_acls,
    list_dest_acls,
    list_dest_views,
    list_views,
)
from bt_migrate.objects.prepare import PlannedObject
from bt_migrate.rows.count import Summaries, row_object_ids
from bt_migrate.state.files import make_private, write_json
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import VERIFY_FOLDER
from bt_migrate.state.stream_state import StreamState
from bt_migrate.state.sync_marks import mark_seconds
from bt_migrate.verify.counts import CompareContext, Pair, Patience, both, compare_counts, grouped
from bt_migrate.verify.normalize import for_judging
from bt_migrate.verify.objects import (
    DIFFERS,
    MATCH,
    MISSING,
    OUTCOMES,
    UNREADABLE,
    Bytes,
    Comparison,
    compare_objects,
)
from bt_migrate.verify.rows import (
    ROWS_TOGETHER,
    batches_of,
    compare_full,
    compare_large_sample,
    compare_sample,
)

log = logging.getLogger("bt_migrate.verify")

MAX_DIFFERENCES_KEPT = 1000  # in run.json and the report; the files hold all
BATCHES_AT_ONCE = 4
SIGNALS_S = 0.2  # between two looks whether somebody asked for the end


class Records:
    """`<outcome>.jsonl` for what is no match, written as it is found; the first ones are kept. Safe for many threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: List[Dict[str, Any]] = []
        self.security: List[Dict[str, Any]] = []
        self._lock = threading.Lock()
        try:
            make_private(folder)
            self._files = {outcome: self._open(outcome) for outcome in OUTCOMES if outcome != MATCH}
        except OSError as error:
            raise StateError(
                f"{folder}: cannot be written ({error.strerror}); make room, then run again"
            ) from None

    def _open(self, outcome: str) -> IO[str]:
        path = self.folder / f"{outcome}.jsonl"
        return open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii"
        )

    def __call__(self, record: Dict[str, Any]) -> None:
        with self._lock:
            try:
                self._files[record["outcome"]].write(json.dumps(record) + "\n")
            except OSError as error:
                raise StateError(
                    f"{self.folder}: cannot be written ({error.strerror}); make room, then run again"
                ) from None
            if len(self.kept) < MAX_DIFFERENCES_KEPT:
                self.kept.append(record)
            if record.get("security"):
                self.security.append(record)

    def close(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a full disk was told when it was written to
                file.close()


def verify(migration: Migration) -> Dict[str, Any]:
    """Compare objects, then rows. The result goes into run.json and from there into the report; neither side is written."""
    catalog = for_judging(migration.catalog)
    migration = replace(migration, catalog=catalog)
    migration.run.data.pop("verification", None)  # an interrupted comparison is no result
    migration.run.save()
    records = Records(migration.run.path / VERIFY_FOLDER)
    bytes_of = Bytes(AttachmentBytes(catalog.source), AttachmentBytes(catalog.dest))
    try:
        kinds = [
            one
            for one in OBJECT_RESOURCES
            if one.scope == "project" and migration.settings.selects(one.name)
        ]
        catalog.prefetch([*REFERABLE, *kinds], [PROJECTS])
        scopes = [
            ProjectPair(project, catalog.resolve((PROJECTS.name,), project["id"]), project["name"])
            for project in catalog.projects()
        ]
        catalog.prefetch((), kinds, [scope.dest_id for scope in scopes if scope.dest_id])
        objects = list(_compare_objects(migration, scopes, bytes_of, records))
        pairs = [pair for scope in scopes if scope.dest_id for pair in _pairs(migration, scope)]
        sides = CompareContext(
            catalog,
            bytes_of,
            Patience(migration.settings.verify_wait, migration.stop.wait),
            records,
            migration.settings.verify_sample,
        )
        rows = _compare_rows(sides, pairs, migration.settings.depth)
    finally:
        records.close()
        bytes_of.close()
    result = _result(migration, objects, rows, records)
    write_json(
        records.folder / "match.json",
        {"objects": _total(objects)[MATCH], "rows": _total(rows)[MATCH]},
    )
    migration.run.data["verification"] = result
    migration.run.save()
    log.info(
        "verification: %s", result["text"], extra={"event": "verified", "equal": result["equal"]}
    )
    return result


def _result(
    migration: Migration,
    objects: Sequence[Comparison],
    rows: Sequence[Comparison],
    records: Records,
) -> Dict[str, Any]:
    """`equal`: nothing but matches. `arrived`: nothing differs or is missing but what changed in the source since the copy."""
    everything = [*objects, *rows]
    total, since = _total(everything), _total(everything, lambda one: one.since)
    lost = [outcome for outcome in (DIFFERS, MISSING) if total[outcome] > since[outcome]]
    equal = not any(total[outcome] for outcome in OUTCOMES if outcome != MATCH)
    word = "equal" if equal else "NOT EQUAL" if lost else "all arrived, not equal"
    kinds = {
        name: [one for one in everything if one.resource == name]
        for name in dict.fromkeys(one.resource for one in everything)
    }
    return {
        "equal": equal,
        "arrived": not lost,
        "depth": migration.settings.depth,
        "text": f"{word}: objects {_words(_total(objects))}; rows by {migration.settings.depth} {_words(_total(rows))}",
        "objects": dict(_total(objects)),
        "rows": dict(_total(rows)),
        "changed_since_copy": sum(since.values()),
        "kinds": {
            name: {
                "outcomes": dict(_total(some)),
                "changed_since_copy": sum(_total(some, lambda one: one.since).values()),
            }
            for name, some in kinds.items()
        },
        "tolerated": merged(one.tolerated for one in everything),
        "security": records.security,
        "differences": records.kept,
        "folder": str(records.folder),
    }


def _total(
    comparisons: Iterable[Comparison], of: Callable[[Comparison], Counter] = lambda one: one.counts
) -> Counter:
    total: Counter = Counter()
    for one in comparisons:
        total.update(of(one))
    return Counter({name: total[name] for name in OUTCOMES if total[name]})


def _words(counts: Counter) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


# -- objects


def _compare_objects(
    migration: Migration, scopes: Sequence[ProjectPair], bytes_of: Bytes, records: Records
) -> Iterator[Comparison]:
    catalog, settings = migration.catalog, migration.settings
    whole = (
        None if settings.projects else ""
    )  # of some projects only, the organization's own objects are not all to be expected

    def compare(
        resource: Resource, scope: Optional[ProjectPair], objects: Callable[[], List[dict]]
    ) -> Comparison:
        scope_name = scope.name if scope else ""
        result = Comparison(resource.name, scope_name, records)
        try:
            states = ObjectStates(
                migration.run.path / "none", resource.name, scope_name
            )  # only names the project; never saved
            items = [
                PlannedObject(one, states, _place_in_dest(scope) if scope else "")
                for one in objects()
            ]
            extras_in = "" if resource is ACLS else scope.dest_id if scope else whole
            compare_objects(catalog, resource, items, bytes_of, result, extras_in=extras_in)
        except ApiError as error:
            if error.status >= 500:
                raise
            result.add(
                UNREADABLE,
                id="",
                name=resource.name,
                detail=f"{error.side} answered {error.status} to {error.path}",
            )
        return result

    yield compare(PROJECTS, None, lambda: [scope.source for scope in scopes])
    for resource in OBJECT_RESOURCES:
        if resource is PROJECTS or not settings.selects(resource.name):
            continue
        if resource is ACLS:
            yield compare(ACLS, None, lambda: _acls(catalog, scopes))
        elif resource.scope == "organization" and resource is not PROJECT_SETTINGS:
            yield compare(resource, None, partial(catalog.source_list, resource))
        else:
            if resource is VIEWS:
                yield compare(VIEWS, None, lambda: _views(catalog, "", ""))
            for scope in scopes:
                yield compare(resource, scope, partial(_objects_of, catalog, resource, scope))


def _place_in_dest(scope: ProjectPair) -> str:
    """The project's id in the destination; one that nothing is in where it is missing itself."""
    return scope.dest_id or planned_id(scope.source["id"])


def _objects_of(catalog: Catalog, resource: Resource, scope: ProjectPair) -> List[dict]:
    if resource is PROJECT_SETTINGS:
        return [scope.source]
    if resource is VIEWS:
        return _views(catalog, scope.source["id"], _place_in_dest(scope))
    return catalog.source_objects(resource, scope.source["id"])


def _views(catalog: Catalog, project_id: str, dest_project: str) -> List[dict]:
    catalog.provide(VIEWS, dest_project, list_dest_views(catalog, project_id))
    return list_views(catalog, project_id)


def _acls(catalog: Catalog, scopes: Sequence[ProjectPair]) -> List[dict]:
    """The source's ACLs; the destination's are those on the counterparts of the same objects."""
    owners = acl_owners(catalog, [scope.source for scope in scopes])
    theirs = set(dest_owners(catalog, owners))
    catalog.provide(
        ACLS,
        "",
        [
            one
            for one in list_dest_acls(catalog, owners)
            if (one["object_type"], one["object_id"]) in theirs
        ],
    )
    return list_acls(catalog, owners)


# -- rows


def _pairs(migration: Migration, scope: ProjectPair) -> Iterator[Pair]:
    """Every object with rows that has a counterpart, with what this run knows of its copy."""
    streams = {
        (stream.header["kind"], stream.header["source_id"]): stream
        for stream in migration.run.all_streams()
    }
    copied = _copied(migration)
    for kind in ROW_KINDS:
        if not migration.settings.selects(kind):
            continue
        objects = (
            migration.catalog.source_objects(BY_NAME[kind], scope.source["id"])
            if kind in BY_NAME
            else [scope.source]
        )
        names = {one["id"]: one["name"] for one in objects}
        for source_id in row_object_ids(migration.catalog, kind, scope.source["id"]):
            dest_id = migration.catalog.resolve(
                (kind if kind in BY_NAME else PROJECTS.name,), source_id
            )
            if dest_id:
                stream = streams.get((kind, source_id))
                seen = stream.sibling("_seen.sqlite3") if stream else None
                known = seen if seen and seen.exists() else None
                yield Pair(
                    kind,
                    scope.name,
                    names[source_id],
                    source_id,
                    dest_id,
                    copied if stream else None,
                    known,
                    _mark(migration, stream),
                )


def _mark(migration: Migration, stream: Optional[StreamState]) -> int:
    """The second of the source's clock up to which the last sync took the rows; 0 where the run's start says it."""
    if stream is None or stream.header["kind"] not in migration.run.data.get("marks", {}):
        return 0
    behind = stream.slices[0].get("above") if not stream.done else None
    return (
        xact_seconds(behind) if behind else mark_seconds(migration.run.data, stream.header["kind"])
    )


def _copied(migration: Migration) -> Tuple[float, float]:
    """Unix seconds at which the run began, and at which the last program that copied in it ended (now, where none has)."""
    ends = [
        one.get("ended") for one in migration.run.data["sessions"] if one["command"] != "verify"
    ]
    ended = instant(ends[-1]).timestamp() if ends and ends[-1] else time.time()
    written = max(
        (one.get("wrote_until", 0.0) for one in migration.run.data["sessions"]), default=0.0
    )  # by the destination's clock
    return migration.run.data.get("source_time") or instant(
        migration.run.data["created"]
    ).timestamp(), written or ended


def _compare_rows(sides: CompareContext, pairs: Sequence[Pair], depth: str) -> List[Comparison]:
    """Counts of all; unless these are all that was asked for, rows in batches that the counts of both sides make."""
    results: List[Comparison] = []
    counts: Summaries = {}
    groups = list(grouped(pairs))
    with ThreadPoolExecutor(BATCHES_AT_ONCE, thread_name_prefix="compare") as pool:
        if depth == "full":
            for source, _ in _in_order([pool.submit(both, sides, group) for group in groups]):
                counts.update(source)
            batches = [
                pool.submit(compare_full, sides, batch) for batch in batches_of(pairs, counts)
            ]
        else:
            for some, source in _in_order(
                [pool.submit(compare_counts, sides, group) for group in groups]
            ):
                results += some
                counts.update(source)
            sampled = batches_of(pairs, counts) if depth == "sample" else ()
            batches = [pool.submit(_sample, sides, batch, counts) for batch in sampled]
        for some in _in_order(batches):
            results += some
    return results


def _in_order(futures: Sequence[Future]) -> Iterator[Any]:
    """Their results. Waits in short pieces: a signal that comes as a long wait begins would be handled only at its end."""
    for future in futures:
        while not future.done():
            wait([future], timeout=SIGNALS_S)
        yield future.result()


def _sample(sides: CompareContext, batch: Sequence[Pair], counts: Summaries) -> List[Comparison]:
    count = counts.get(batch[0].source_id)
    large = len(batch) == 1 and (count is None or count.rows > ROWS_TOGETHER)
    return compare_large_sample(sides, batch) if large else compare_sample(sides, batch)
