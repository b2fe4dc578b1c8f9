"""The result of a comparison.

Outcomes are counted for each kind and project; differences are written as they are found. Files and
results contain ids and field paths, never content.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import (
    IO,
    Any,
    Callable,
    DefaultDict,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
)

from bt_migrate.model.outcomes import DIFFERS
from bt_migrate.state.accepted import Accepted
from bt_migrate.state.files import cannot_write, make_private

MATCH, MISSING, EXTRA, UNREADABLE = "match", "missing", "extra", "unreadable"
ONLY_IN_DEST = "only_in_dest"  # an extra object that no run created
ACCEPTED = "accepted"  # differs, is missing or extra, and a person accepted it
CANNOT_MOVE = "cannot_move"  # missing, and nothing that the API could have carried
COMPARED_AS = (
    MATCH, DIFFERS, MISSING, EXTRA, UNREADABLE, CANNOT_MOVE, ACCEPTED, ONLY_IN_DEST,
)  # fmt: skip
AS_IT_CAN_BE = (MATCH, CANNOT_MOVE, ACCEPTED, ONLY_IN_DEST)
# outcomes that have a file with all of their records
WITH_FILE = (DIFFERS, MISSING, EXTRA, UNREADABLE, ACCEPTED, ONLY_IN_DEST)
OUTCOME_WORDS = {CANNOT_MOVE: "cannot be moved", ONLY_IN_DEST: "only in the destination"}

MAX_PATHS = 50  # reported for one object or row
MAX_DIFFERENCES_KEPT = 1000  # in run.json and the report; the files have all of them

ReportDifference = Callable[[Dict[str, Any]], None]  # takes the record of an object or row


@dataclass
class Comparison:
    """Outcomes of one kind in one project. Differences are reported at once and not kept."""

    resource: str
    project: str
    report: ReportDifference
    accepted: Accepted = field(default_factory=Accepted)
    counts: Counter[str] = field(default_factory=Counter)
    # the part of `counts` that changed in the source after the copy
    since: Counter[str] = field(default_factory=Counter)
    tolerated: Counter[str] = field(default_factory=Counter)
    # of a comparison of every row: day of creation, "" if unknown -> outcome -> rows
    days: DefaultDict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add_matches(self, rows: int, day: str) -> None:
        """Count equal rows of a day."""
        self.counts[MATCH] += rows
        self.days[day][MATCH] += rows

    def add(
        self, outcome: str, *, since: bool = False, day: Optional[str] = None, **facts: Any
    ) -> None:
        """Count an outcome; with a `day`, that of a row.

        `facts`: id, name; also row, fields, detail, security and fingerprint if known.
        """
        if outcome == MATCH:
            self._count(MATCH, day)
            return
        record = {
            "outcome": outcome,
            "resource": self.resource,
            "project": self.project,
            **facts,
            "changed_since_copy": since,
        }
        optional = record.keys() - {"outcome", "resource", "project"}
        empty = [name for name in optional if record[name] in (None, "", [], False)]
        if self.accepted.holds(record):
            record.update(outcome=ACCEPTED, was=outcome)
        self._count(record["outcome"], day)
        self.since[record["outcome"]] += since
        self.report({name: value for name, value in record.items() if name not in empty})

    def _count(self, outcome: str, day: Optional[str]) -> None:
        self.counts[outcome] += 1
        if day is not None:
            self.days[day][outcome] += 1


class Differences:
    """Writes each difference to `<outcome>.jsonl`, keeps the first ones. Safe for many threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: List[Dict[str, Any]] = []
        self.security: List[Dict[str, Any]] = []
        self.cannot_move: List[Dict[str, Any]] = []
        self.accepted: List[Dict[str, Any]] = []
        self.only_in_dest: List[Dict[str, Any]] = []
        self._lock = threading.Lock()
        self._files: Dict[str, IO[str]] = {}

    def __enter__(self) -> Differences:
        with self._disk_errors():
            make_private(self.folder)
            for outcome in WITH_FILE:
                self._files[outcome] = _open_private(self.folder / f"{outcome}.jsonl")
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            # A full disk was reported when the file was written.
            with contextlib.suppress(OSError):
                file.close()

    def add(self, record: Dict[str, Any]) -> None:
        with self._lock:
            if record["outcome"] == CANNOT_MOVE:
                self.cannot_move.append(record)
                return
            with self._disk_errors():
                self._files[record["outcome"]].write(json.dumps(record) + "\n")
            apart = {ACCEPTED: self.accepted, ONLY_IN_DEST: self.only_in_dest}
            records = apart.get(record["outcome"], self.kept)
            if len(records) < MAX_DIFFERENCES_KEPT:
                records.append(record)
            if records is self.kept and record.get("security"):
                self.security.append(record)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self.folder, error) from None


def _open_private(path: Path) -> IO[str]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return open(descriptor, "w", encoding="ascii")


def outcome_totals(comparisons: Iterable[Comparison]) -> Dict[str, int]:
    """Returns outcome -> count over all comparisons, in the order of COMPARED_AS, without zeros."""
    return _totals(comparison.counts for comparison in comparisons)


def changed_since_totals(comparisons: Iterable[Comparison]) -> Dict[str, int]:
    """Returns the part of the outcomes that the source changed after the copy."""
    return _totals(comparison.since for comparison in comparisons)


def totals_by_day(comparisons: Sequence[Comparison]) -> Dict[str, Dict[str, int]]:
    """Returns day -> outcome -> rows."""
    days = sorted({day for comparison in comparisons for day in comparison.days})
    return {
        day: _totals(comparison.days[day] for comparison in comparisons if day in comparison.days)
        for day in days
    }


def _totals(counters: Iterable[Counter[str]]) -> Dict[str, int]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return {outcome: total[outcome] for outcome in COMPARED_AS if total[outcome]}


def outcomes_text(counts: Dict[str, int]) -> str:
    words = [
        f"{count:,} {OUTCOME_WORDS.get(outcome, outcome)}" for outcome, count in counts.items()
    ]
    return ", ".join(words) or "none"


def first_paths(paths: Iterator[str]) -> List[str]:
    """Returns at most MAX_PATHS paths; the last is "…" if there are more."""
    first = list(islice(paths, MAX_PATHS + 1))
    return first if len(first) <= MAX_PATHS else [*first[:-1], "…"]
