"""Source against destination, as they are now: objects field by field, rows by count or by the digest of their canonical form.
Never writes.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from bt_migrate.api import Api
from bt_migrate.batches import EncodedRow
from bt_migrate.btql import OBJECTS_PER_COUNT, Bounds, count_query
from bt_migrate.canonical import digest
from bt_migrate.catalog import Catalog
from bt_migrate.copy_rows import bounds_of
from bt_migrate.errors import ApiError
from bt_migrate.outgoing import Notes, Outgoing
from bt_migrate.planning import differing, display_name, natural_key
from bt_migrate.prepare_objects import Item, not_placeable, prepare, skip_reason
from bt_migrate.read_rows import pages
from bt_migrate.resources import BY_NAME, CALLABLE, PROJECT_SETTINGS, ROW_KINDS, Resource
from bt_migrate.rows import insertable_row

MATCH, DIFFERS, MISSING, EXTRA, UNREADABLE = OUTCOMES = ("match", "differs", "missing", "extra", "unreadable")

LAG_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # waits for a destination that does not show fresh rows yet
IDS_SHOWN = 20  # row ids named per stream and outcome


@dataclass
class Comparison:
    """Counts by outcome of one kind in one project, and what is not a match."""

    resource: str
    project: str
    counts: Counter[str] = field(default_factory=Counter)
    differences: List[Dict[str, Any]] = field(default_factory=list)

    def add(self, outcome: str, **facts: Any) -> None:
        self.counts[outcome] += 1
        if outcome != MATCH:
            self.differences.append({"resource": self.resource, "project": self.project, "outcome": outcome, **facts})


def compare_objects(catalog: Catalog, resource: Resource, items: Sequence[Item], project: str) -> Comparison:
    """Every movable source object against the destination's object of the same natural key; what the destination has beyond is
    extra.
    """
    result = Comparison(resource.name, project)
    matched: Set[tuple] = set()
    for item in items:
        if skip_reason(catalog, resource, item.source):
            continue
        name, source_id = display_name(resource, item.source), item.source["id"]
        body = prepare(catalog, resource, item).body
        if not_placeable(resource, item.source, body):
            continue
        key = natural_key(resource, body if resource.scope == "object" else item.source)
        existing = catalog.dest_by_key(resource, item.dest_project_id).get(key)
        if existing is None:
            result.add(MISSING, id=source_id, name=name)
            continue
        matched.add(key)
        fields = differing(resource, body, existing)
        result.add(DIFFERS if fields else MATCH, id=source_id, name=name, fields=fields)
    if resource is PROJECT_SETTINGS:
        return result  # a part of its project: nothing can be beyond it
    for dest_project in {item.dest_project_id for item in items}:
        # Not beyond: what stands for an object that this tool does not move (built-in, pushed by hand), and the other kind of
        # one store.
        ours = matched | {natural_key(resource, item.source) for item in items}
        for other in set(CALLABLE) - {resource.name} if resource.name in CALLABLE else ():
            ours |= {natural_key(resource, one) for one in catalog.dest_by_key(BY_NAME[other], dest_project).values()}
        for key, existing in catalog.dest_by_key(resource, dest_project).items():
            if key not in ours:
                result.add(EXTRA, id=existing["id"], name=display_name(resource, existing))
    return result


# -- rows


@dataclass(frozen=True)
class Pair:
    """One object with rows on both sides.

    `expected` is the number of rows that the copy delivered, None where it is not known.
    """

    kind: str
    project: str
    name: str
    source_id: str
    dest_id: str
    expected: Optional[int] = None


def compare_counts(catalog: Catalog, pairs: Sequence[Pair], sleep: Callable[[float], Any] = time.sleep) -> List[Comparison]:
    """Row counts, one query for up to 25 objects; objects are counted one by one only where the sums disagree."""
    results, groups = [], []
    pauses = iter(LAG_S)  # for all streams together: lag is the destination's, not a stream's
    for kind in ROW_KINDS:
        ours = [pair for pair in pairs if pair.kind == kind]
        groups += [ours[start : start + OBJECTS_PER_COUNT] for start in range(0, len(ours), OBJECTS_PER_COUNT)]
    for group, (wanted, found) in zip(groups, catalog.at_once(lambda group: _counts(catalog, group), groups)):
        if wanted is not None and wanted == found:
            results += [_count_result(pair, wanted, found, alone=len(group) == 1) for pair in group]
        else:
            results += _compare_group(catalog, group, pauses, sleep)
    return results


def _counts(catalog: Catalog, group: Sequence[Pair]) -> Tuple[Optional[int], Optional[int]]:
    return _expected(catalog, group), _count(catalog.dest, catalog, group[0].kind, [pair.dest_id for pair in group])


def _compare_group(
    catalog: Catalog, group: Sequence[Pair], pauses: Iterator[float], sleep: Callable[[float], Any]
) -> List[Comparison]:
    wanted, found = _counts(catalog, group)
    if len(group) > 1 and (wanted is None or wanted != found):
        return [one for pair in group for one in _compare_group(catalog, [pair], pauses, sleep)]
    while wanted is not None and found is not None and found < wanted:
        pause = next(pauses, None)
        if pause is None:
            break
        sleep(pause)
        found = _count(catalog.dest, catalog, group[0].kind, [pair.dest_id for pair in group])
    return [_count_result(pair, wanted, found, alone=len(group) == 1) for pair in group]


def _count_result(pair: Pair, wanted: Optional[int], found: Optional[int], *, alone: bool) -> Comparison:
    result = Comparison(f"rows of {pair.kind}", pair.project)
    facts = {"id": pair.source_id, "name": pair.name}
    if wanted is None or found is None:
        result.add(UNREADABLE, **facts, detail="rows cannot be counted")
    elif not alone or wanted == found:
        result.add(MATCH, **facts)
    else:
        short = found < wanted
        result.add(MISSING if short else EXTRA, **facts, detail=f"{wanted:,} rows expected, {found:,} in the destination")
    return result


def _expected(catalog: Catalog, group: Sequence[Pair]) -> Optional[int]:
    """What the copy delivered where it is known (the source may have grown since), else what the source holds now."""
    known = [pair.expected for pair in group if pair.expected is not None]
    if len(known) == len(group):
        return sum(known)
    return _count(catalog.source, catalog, group[0].kind, [pair.source_id for pair in group])


def _count(api: Api, catalog: Catalog, kind: str, ids: Sequence[str]) -> Optional[int]:
    """Rows of the objects in the window; None where the server does not count."""
    try:
        rows = api.query(count_query(kind, ids, bounds_of(catalog, ROW_KINDS[kind]))).json
        return int(rows[0]["rows"]) if rows else 0
    except (ApiError, KeyError, TypeError, ValueError):
        return None


def compare_rows(catalog: Catalog, pair: Pair) -> Comparison:
    """Every row of both sides by id and digest. Digests of the destination lie in a temporary SQLite file: memory stays flat."""
    result = Comparison(f"rows of {pair.kind}", pair.project)
    kind = ROW_KINDS[pair.kind]
    limit, bounds = catalog.settings.rows(pair.kind).fetch_limit, bounds_of(catalog, kind)
    db = sqlite3.connect("")  # a private file that SQLite removes
    try:
        db.execute("create table dest (id text primary key, digest blob) without rowid")
        for page in pages(catalog.dest, pair.kind, [pair.dest_id], bounds, limit=limit):
            rows = [(row["id"], digest(insertable_row(kind, row))) for row in page.rows]
            db.executemany("insert or replace into dest values (?, ?)", rows)
        for row, expected in _expected_rows(catalog, pair, limit, bounds):
            found = db.execute("select digest from dest where id = ?", (row.id,)).fetchone()
            db.execute("delete from dest where id = ?", (row.id,))
            _add_row(result, pair, MISSING if found is None else MATCH if found[0] == expected else DIFFERS, row.id)
        for (row_id,) in db.execute("select id from dest"):
            _add_row(result, pair, EXTRA, row_id)
    finally:
        db.close()
    return result


def _expected_rows(catalog: Catalog, pair: Pair, limit: int, bounds: Bounds) -> Iterator[Tuple[EncodedRow, bytes]]:
    outgoing, notes = Outgoing(catalog, ROW_KINDS[pair.kind]), Notes()
    for page in pages(catalog.source, pair.kind, [pair.source_id], bounds, limit=limit):
        for row in page.rows:
            encoded, out = outgoing.encoded(row, pair.source_id, notes)
            yield encoded, digest(out)


def _add_row(result: Comparison, pair: Pair, outcome: str, row_id: str) -> None:
    if outcome == MATCH or result.counts[outcome] >= IDS_SHOWN:
        result.counts[outcome] += 1
    else:
        result.add(outcome, id=pair.source_id, name=pair.name, row=row_id)


def totals(comparisons: Iterable[Comparison]) -> Dict[str, int]:
    total: Counter[str] = Counter()
    for one in comparisons:
        total.update(one.counts)
    return {name: total[name] for name in OUTCOMES if total[name]}
