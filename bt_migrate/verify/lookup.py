"""Compare single rows of one object by their ids. Never writes."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from bt_migrate.api.transactions import xact_of, xact_seconds
from bt_migrate.model.equality import differing_paths
from bt_migrate.model.outcomes import DIFFERS
from bt_migrate.rows.read import rows_of_ids
from bt_migrate.rows.rewrite import COMMENTS
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.verify.normalize import Form
from bt_migrate.verify.pairs import CompareContext, ObjectPair, copy_second
from bt_migrate.verify.result import EXTRA, MATCH, MISSING, Comparison, first_paths
from bt_migrate.verify.sides import ReadPair, ReadSide

IDS_PER_LOOKUP = 50
NEVER = 1 << 62  # a second after which nothing was written

FoundRows = Dict[str, Tuple[dict, Form]]  # row id -> row as it was read, and its form


class RowLookup:
    """Looks rows of one object up on both sides and adds an outcome for each to `result`."""

    def __init__(
        self, context: CompareContext, pair: ObjectPair, sides: ReadPair, result: Comparison
    ) -> None:
        self.context = context
        self.pair = pair
        self.sides = sides
        self.result = result
        self._copied_at: Optional[int] = None

    def compare(self, ids: Sequence[str]) -> None:
        """Add an outcome for each id. Waits while the destination shows no row or an old one."""
        for start in range(0, len(ids), IDS_PER_LOOKUP):
            self._compare_some(ids[start : start + IDS_PER_LOOKUP])

    def _compare_some(self, ids: Sequence[str]) -> None:
        open_ids = list(ids)
        while open_ids:
            wanted, found = self.sides.at_once(self._fetch, open_ids)
            behind = [
                row_id
                for row_id in open_ids
                if row_id in wanted and not _shows(found, row_id, wanted[row_id][1])
            ]
            if not (behind and self.context.patience.wait()):
                behind = []
            self._judge([row_id for row_id in open_ids if row_id not in behind], wanted, found)
            open_ids = behind

    def _fetch(self, side: ReadSide, ids: Sequence[str]) -> FoundRows:
        rows = rows_of_ids(side.api, self.pair.kind, list(side.ids), ids)
        return {row["id"]: (row, side.forms.form(row, self.pair.source_id)) for row in rows}

    def _judge(self, ids: Sequence[str], wanted: FoundRows, found: FoundRows) -> None:
        delivered = self._delivered(ids)
        for row_id in ids:
            facts = {**self.pair.facts, "row": row_id}
            if row_id not in wanted:
                if row_id in found:
                    # The source had the row when this tool copied it.
                    ours = row_id in delivered or self._written_by_run(found[row_id][1])
                    self.result.add(EXTRA, since=ours, **facts)
                continue
            newer = self._is_newer(wanted[row_id][1], delivered.get(row_id))
            if row_id not in found:
                self.result.add(MISSING, since=newer, **facts)
                continue
            paths = self._paths(wanted[row_id][1], *found[row_id])
            self.result.add(DIFFERS if paths else MATCH, since=newer, **facts, fields=paths)

    def _delivered(self, ids: Sequence[str]) -> Dict[str, Tuple[int, str]]:
        """Row id -> (source transaction, outcome) of rows that the run delivered."""
        if self.pair.seen is None:
            return {}
        seen = SeenRows(self.pair.seen)
        try:
            return seen.outcomes_of(self.pair.source_id, ids) if seen.holds_rows() else {}
        finally:
            seen.close()

    def _is_newer(self, form: Form, delivered: Optional[Tuple[int, str]]) -> bool:
        """Whether the source wrote this state of the row after the copy."""
        if delivered:
            return xact_of(form.xact) > delivered[0]
        if self._copied_at is None:
            self._copied_at = copy_second(self.context.catalog, self.pair) or NEVER
        return xact_seconds(xact_of(form.xact)) > self._copied_at

    def _written_by_run(self, form: Form) -> bool:
        """Whether the destination's row was written while the run copied."""
        if self.pair.copied is None:
            return False
        began, ended = self.pair.copied
        return int(began) <= xact_seconds(xact_of(form.xact)) <= ended

    def _paths(self, wanted: Form, found_row: Mapping[str, Any], found: Form) -> List[str]:
        """Paths at which the destination's row is not what it should be."""
        tolerated = self.result.tolerated
        if wanted.text == found.text:
            if wanted.exact != found.exact:
                tolerated["timestamp"] += max(wanted.stamps, found.stamps)
            return []
        left, right = json.loads(wanted.text), json.loads(found.text)
        if "origin" in right and "origin" not in left:
            del right["origin"]
            tolerated["origin"] += 1
        shows_comments = self.sides.dest.api.capabilities.shows_comments
        if COMMENTS in left and COMMENTS not in found_row and not shows_comments:
            del left[COMMENTS]
            tolerated["comments_unreadable"] += 1
        theirs = right.get(COMMENTS) or {}
        for comment_id, (date, _) in (left.get(COMMENTS) or {}).items():
            if date is None and comment_id in theirs:
                # The destination gave the comment a date of its own.
                theirs[comment_id][0] = None
                tolerated["unset"] += 1
        return first_paths(differing_paths(left, right, "", tolerated))


def _shows(found: FoundRows, row_id: str, wanted: Form) -> bool:
    return row_id in found and found[row_id][1].text == wanted.text
