"""What a comparison of every row has read so far, so that a later start continues from there.

There is one file for each group of objects and side. It holds no rows, only a `DayDigest` for each
object and day, and the key up to which rows were read: a later start adds the rows after that key
to the same digests. A file is used again only if the server confirms that none of the rows that it
covers has changed.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from bt_migrate.api.btql import Bounds
from bt_migrate.api.client import Api
from bt_migrate.api.transactions import xact_at
from bt_migrate.model.equality import text_digest
from bt_migrate.rows.read import Page, count_inside
from bt_migrate.state.files import FORMAT, read_record, write_json
from bt_migrate.state.folder_names import id_file_name
from bt_migrate.state.records import json_of
from bt_migrate.verify.normalize import Form
from bt_migrate.verify.sides import ReadSide

# The file of a long stream is written after this many seconds, or --checkpoint-interval pages.
KEEP_S = 10.0
# subfolder of the comparison's folder in the run
KEPT_FOLDER = "read"


@dataclass
class DayDigest:
    """What stands for the rows of one object and day when both sides are compared.

    Hashes of rows are added up, so the two sides may show the rows in different orders.
    """

    # number of rows
    rows: int = 0
    # sum of the hashes of the rows in canonical form, in which equal timestamps are equal texts
    canonical: int = 0
    # the same of the rows with their timestamps as they were read
    exact: int = 0
    # number of timestamps whose text is not the canonical one
    stamps: int = 0

    def add(self, form: Form) -> None:
        self.rows += 1
        canonical = _hash(form.text)
        self.canonical += canonical
        self.exact += canonical if form.exact == form.text else _hash(form.exact)
        self.stamps += form.stamps

    def equals(self, other: DayDigest) -> bool:
        """Whether the rows are equal, but for the way in which timestamps are written."""
        return (self.rows, self.canonical) == (other.rows, other.canonical)


def _hash(text: str) -> int:
    """Returns a hash that is the same in every process, unlike Python's own."""
    return int.from_bytes(text_digest(text), "big")


DayDigests = Dict[Tuple[str, str], DayDigest]  # by source object and day


@dataclass
class KeptDay:
    """The digest of one object and day."""

    object: str
    day: str
    rows: int
    canonical: int
    exact: int
    stamps: int


@dataclass
class KeptSide:
    """What was read of a group of objects on one side.

    `basis`: what the digests depend on besides the rows. `began`: the transaction before which
    reading began. `after`: the key up to which rows were read. `complete`: all of them were read,
    and `after` is None.
    """

    basis: str
    ids: Dict[str, str]
    began: int
    after: Optional[str] = None
    complete: bool = False
    rows: int = 0
    days: List[KeptDay] = field(default_factory=list)
    tolerated: Dict[str, int] = field(default_factory=dict)
    shows_comments: bool = False


@dataclass(frozen=True)
class KeptRows:
    """The folder in which a comparison keeps what it has read."""

    folder: Path
    basis: str
    pages: int

    def reading(self, side: ReadSide, kind: str, bounds: Bounds) -> SideReading:
        """Returns the reading of a group, continued from an earlier process if possible."""
        name = id_file_name(next(iter(side.ids.values())))
        path = self.folder / f"{kind}_{name}.{side.api.side}.json"
        reading = SideReading(path, side, self.basis, self.pages)
        if path.exists():
            reading.take_over(read_record(path, KeptSide), kind, bounds)
        return reading

    @property
    def is_begun(self) -> bool:
        """Whether an earlier process has kept something."""
        return self.folder.is_dir() and any(self.folder.iterdir())

    def forget(self) -> None:
        """Delete the folder once the comparison has a result: the next one reads everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


class SideReading:
    """Reads the rows of a group of objects on one side. Not safe for several threads."""

    def __init__(self, path: Path, side: ReadSide, basis: str, pages: int) -> None:
        self._path = path
        self._side = side
        self._pages = pages
        self._state = KeptSide(basis, dict(side.ids), xact_at(int(side.api.clock.earliest_s())))
        self._pages_read = 0
        self._kept_s = time.monotonic()
        self.digests: DayDigests = {}

    @property
    def complete(self) -> bool:
        return self._state.complete

    @property
    def rows(self) -> int:
        return self._state.rows

    def rest_of(self, bounds: Bounds) -> Bounds:
        """Returns the bounds of what is still to be read."""
        return bounds.after(self._state.after) if self._state.after else bounds

    def take_over(self, kept: KeptSide, kind: str, bounds: Bounds) -> None:
        """Continue from what was read, unless it may have changed since."""
        same = (kept.basis, kept.ids) == (self._state.basis, self._state.ids)
        if not same or not _is_unchanged(self._side.api, kind, kept, bounds):
            return
        self._state = kept
        for day in kept.days:
            digest = DayDigest(day.rows, day.canonical, day.exact, day.stamps)
            self.digests[day.object, day.day] = digest
        self._side.forms.tolerated.update(kept.tolerated)
        if kept.shows_comments:
            self._side.api.capabilities.shows_comments = True

    def add(self, object_id: str, day: str, form: Form) -> None:
        self._state.rows += 1
        place = (object_id, day)
        if place not in self.digests:
            self.digests[place] = DayDigest()
        self.digests[place].add(form)

    def end_page(self, page: Page) -> None:
        """Record that all rows of a page were added."""
        self._state.after = page.end_key
        self._pages_read += 1
        is_due = time.monotonic() - self._kept_s > KEEP_S
        if self._pages_read % self._pages == 0 or is_due:
            self._keep()

    def end(self) -> None:
        """Record that all rows were added."""
        self._state.complete = True
        self._keep()

    def _keep(self) -> None:
        state = self._state
        state.days = [
            KeptDay(object_id, day, digest.rows, digest.canonical, digest.exact, digest.stamps)
            for (object_id, day), digest in self.digests.items()
        ]
        state.tolerated = dict(self._side.forms.tolerated)
        state.shows_comments = self._side.api.capabilities.shows_comments
        write_json(self._path, {"format": FORMAT, **json_of(state)})
        self._kept_s = time.monotonic()


def _is_unchanged(api: Api, kind: str, kept: KeptSide, bounds: Bounds) -> bool:
    """Whether all rows that were read still exist, and none was written since.

    A server that may use only the first of several ids cannot prove that.
    """
    ids = list(kept.ids)
    if len(ids) > 1 and not api.capabilities.reads_groups:
        return False
    read = bounds if kept.complete or not kept.after else replace(bounds, end_key=kept.after)
    if count_inside(api, kind, ids, read) != kept.rows:
        return False
    return count_inside(api, kind, ids, replace(read, after_xact=kept.began - 1)) == 0
