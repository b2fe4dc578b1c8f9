"""Compare single rows of one object by their ids. Never writes."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from bt_migrate.api.transactions import xact_of, xact_seconds
from bt_migrate.attachments.copy import dest_attachment_key
from bt_migrate.attachments.digests import UNREADABLE as UNREADABLE_BYTES
from bt_migrate.errors import ApiError
from bt_migrate.model.equality import day_of, difference_print, differing_paths, text_digest
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import CREATED, DIFFERS, UPDATED
from bt_migrate.model.portions import portions
from bt_migrate.model.references import (
    Path,
    attachment_places,
    remove,
    set_at,
    top_field,
    value_at,
)
from bt_migrate.model.resource_table import DATASETS
from bt_migrate.objects.pins import is_version_there
from bt_migrate.objects.version_mapping import has_same_number
from bt_migrate.rows.encode import spill_key, spill_names
from bt_migrate.rows.query_counts import IDS_PER_LOOKUP
from bt_migrate.rows.read import found_rows
from bt_migrate.rows.rewrite import (
    COMMENTS,
    ORIGIN_PIN,
    PROMPT_PIN,
    PROMPT_PLACE,
    PROMPT_VERSION,
    SPILLABLE,
    VERSION_PLACES,
    copied,
)
from bt_migrate.state.seen_rows import ANY_ROUND, SeenRows
from bt_migrate.state.wrong_attachments import WrongAttachment
from bt_migrate.verify.normalize import Form, SourceForms
from bt_migrate.verify.pairs import CompareContext, ObjectPair, copy_second
from bt_migrate.verify.result import (
    EXTRA,
    MATCH,
    MISSING,
    UNREADABLE,
    Comparison,
    first_paths,
)
from bt_migrate.verify.sides import ReadPair, ReadSide, read_pair

NEVER = 1 << 62  # a second in the future: nothing was written after it

FAILED_READ = 10_000  # the most failed rows that are loaded by id
DELIVERED = (CREATED, UPDATED)
# Parts of a row that a server may show later than the row: it indexes them by themselves.
SHOWN_LATER = ("facets", COMMENTS)


class NotShown(Exception):
    """A server refuses to show rows as they were."""


FoundRow = Tuple[JsonObject, Form]  # a row as it was read, and its form
FoundRows = Dict[str, FoundRow]  # by row id


class DeliveryRecord(NamedTuple):
    """What a run recorded about some rows.

    `outcomes`: row id -> (source transaction, outcome). `dest_xacts`: row id -> transaction of the
    delivery in the destination, 0 if unknown. `failed`: ids of rows that did not arrive.
    """

    outcomes: Mapping[str, Tuple[int, str]]
    dest_xacts: Mapping[str, int]
    failed: FrozenSet[str]


class OriginPin(NamedTuple):
    """The version of a dataset row from which a row was made, as each side names it."""

    source_id: str
    dest_id: str
    source_xact: int
    dest_xact: int
    row_id: str


class RowLookup:
    """Looks up rows of one object on both sides and adds an outcome for each to `result`."""

    def __init__(
        self, context: CompareContext, pair: ObjectPair, sides: ReadPair, result: Comparison
    ) -> None:
        self.context = context
        self.pair = pair
        self.sides = sides
        self.result = result
        self._copied_at: Optional[int] = None
        # ids that a server refuses in a query
        self._refused: Dict[str, ApiError] = {}
        # whether both sides show the same content there
        self._judged_pins: Dict[OriginPin, bool] = {}

    def compare(self, ids: Sequence[str]) -> None:
        """Add an outcome for each id. Waits while the destination shows no row or an old one."""
        for portion in portions(ids, IDS_PER_LOOKUP):
            self._compare_some(portion)

    def _compare_some(self, ids: Sequence[str]) -> None:
        open_ids = list(ids)
        while open_ids:
            wanted, actual = self.sides.at_once(self._fetch, open_ids)
            awaited = self._awaited(open_ids, wanted, actual)
            if not (awaited and self.context.patience.wait()):
                awaited = []
            self._judge([row_id for row_id in open_ids if row_id not in awaited], wanted, actual)
            open_ids = awaited

    def _awaited(self, ids: Sequence[str], wanted: FoundRows, actual: FoundRows) -> List[str]:
        """Returns the rows that the run delivered and the destination does not show yet."""
        if self.pair.copied is None:
            return []
        record = self._record(ids)
        return [
            row_id
            for row_id in ids
            if row_id in wanted
            and row_id not in self._refused
            and not self._is_newer(wanted[row_id][1], record.outcomes.get(row_id))
            and self._is_in_flight(row_id, wanted[row_id][1], actual.get(row_id), record)
        ]

    def _is_in_flight(
        self,
        row_id: str,
        wanted: Form,
        actual: Optional[Tuple[JsonObject, Form]],
        record: DeliveryRecord,
    ) -> bool:
        outcome = record.outcomes.get(row_id, (0, ""))[1]
        if actual is None:
            recorded = outcome in DELIVERED or (not outcome and self.pair.complete)
            return recorded and row_id not in record.failed
        if actual[1].text == wanted.text:
            return False
        shown_xact = xact_of(actual[1].xact)
        is_ours = self._written_by_run(actual[1])
        if outcome in DELIVERED:
            dest_xact = record.dest_xacts.get(row_id, 0)
            return shown_xact < dest_xact or (is_ours and _lacks_only_parts(wanted, actual[1]))
        if outcome:
            return False
        # The last rows of a copy are not recorded one by one.
        began_s = int(self.pair.copied[0]) if self.pair.copied else 0
        if self.pair.counts[UPDATED] and xact_seconds(shown_xact) < began_s:
            return True
        return self.pair.complete and is_ours and _lacks_only_parts(wanted, actual[1])

    def _fetch(self, side: ReadSide, ids: Sequence[str]) -> FoundRows:
        rows, refused = found_rows(side.api, self.pair.kind, list(side.ids), ids, side.version)
        self._refused.update(refused)
        # the form of a row rewrites the keys of its attachments in place
        return {row["id"]: (copied(row), side.forms.form(row, self.pair.source_id)) for row in rows}

    def _judge(self, ids: Sequence[str], wanted: FoundRows, actual: FoundRows) -> None:
        delivered = self._record(ids).outcomes
        wrong_origins = self._wrong_origins(ids, wanted, actual)
        for row_id in ids:
            row = (wanted.get(row_id) or actual.get(row_id) or [{}])[0]
            facts = {**self.pair.facts, "row": row_id, "day": day_of(row.get("created"))}
            if row_id in self._refused:
                detail = f"cannot be looked up: {self._refused[row_id]}"
                self.result.add(UNREADABLE, **facts, detail=detail)
                continue
            if row_id not in wanted:
                if row_id in actual:
                    # The source had the row when this tool copied it.
                    ours = row_id in delivered or self._written_by_run(actual[row_id][1])
                    facts["fingerprint"] = _print(None, actual[row_id])
                    self.result.add(EXTRA, since=ours, **facts)
                continue
            newer = self._is_newer(wanted[row_id][1], delivered.get(row_id))
            facts["fingerprint"] = _print(wanted[row_id], actual.get(row_id))
            if row_id not in actual:
                self.result.add(MISSING, since=newer, **facts)
                continue
            paths = self._paths(*wanted[row_id], *actual[row_id])
            if paths and self.context.catalog.settings.attachments:
                self.context.attachments.note_wrong(wanted[row_id][0], actual[row_id][0])
            self._note_wrong_fields(row_id, paths, actual[row_id][0])
            if paths and self._was_written_early(wanted[row_id][0], actual[row_id][0]):
                self.result.tolerated["left_out"] += 1
                paths = []
            if row_id in wrong_origins:
                paths.append(ORIGIN_PIN)
            self.result.add(DIFFERS if paths else MATCH, since=newer, **facts, fields=paths)

    def _note_wrong_fields(
        self, row_id: str, paths: Sequence[str], actual: Mapping[str, Any]
    ) -> None:
        """Note fields that are attachments with other content, because the row was too large."""
        dest_org_id = self.context.catalog.dest.org_id
        for name in {top_field(path) for path in paths}.intersection(SPILLABLE):
            key = spill_key(dest_org_id, self.pair.source_id, row_id, name)
            if value_at(actual, (name, "key")) == key:
                self.context.attachments.wrong[key] = WrongAttachment(
                    key, *spill_names(name), kind=self.pair.kind,
                    object_id=self.pair.source_id, row_id=row_id,
                )  # fmt: skip

    def _was_written_early(self, wanted: Dict[str, Any], actual: Dict[str, Any]) -> bool:
        """Whether an earlier state of a dataset lacks only references to what was made after it.

        Such a state cannot be completed: a write makes another one.
        """
        forms = self.sides.source.forms
        if self.pair.source_version is None or not isinstance(forms, SourceForms):
            return False
        return forms.is_left_unfinished(wanted, self.pair.source_id, actual)

    def _wrong_origins(
        self, ids: Sequence[str], wanted: FoundRows, actual: FoundRows
    ) -> FrozenSet[str]:
        """Returns the rows whose origin names a version of a dataset row with other content.

        Not of rows in earlier states: these have the origins that were known then.
        """
        if self.pair.source_version is not None:
            return frozenset()
        on_both = [row_id for row_id in ids if row_id in wanted and row_id in actual]
        pins = {row_id: _origin_pin(wanted[row_id][0], actual[row_id][0]) for row_id in on_both}
        with contextlib.suppress(NotShown):
            self._judge_pins({pin for pin in pins.values() if pin} - self._judged_pins.keys())
        return frozenset(
            row_id for row_id, pin in pins.items() if pin and not self._judged_pins.get(pin, True)
        )

    def _judge_pins(self, pins: Set[OriginPin]) -> None:
        """Compare what the pins name. The present rows are compared anyway, as their dataset."""
        for ids, of_dataset in _by(pins, lambda pin: (pin.source_id, pin.dest_id)):
            present = self._dataset(*ids).fetched({pin.row_id for pin in of_dataset})
            for pin in of_dataset:
                now = [xact_of(rows[pin.row_id][1].xact) for rows in present if pin.row_id in rows]
                if now == [pin.source_xact, pin.dest_xact]:
                    self._judged_pins[pin] = True
        left = pins - self._judged_pins.keys()
        for place, of_version in _by(left, lambda pin: pin[:4]):
            differing = self._dataset(*place).differing({pin.row_id for pin in of_version})
            self._judged_pins.update((pin, pin.row_id not in differing) for pin in of_version)

    def _dataset(
        self,
        source_id: str,
        dest_id: str,
        source_xact: Optional[int] = None,
        dest_xact: Optional[int] = None,
    ) -> RowLookup:
        pair = ObjectPair(
            DATASETS.name, self.pair.project, self.pair.name, source_id, dest_id,
            source_version=source_xact, dest_version=dest_xact,
        )  # fmt: skip
        return RowLookup(self.context, pair, read_pair(self.context, [pair]), self.result)

    def fetched(self, ids: Set[str]) -> List[FoundRows]:
        """Returns the rows of the source and of the destination. Raises NotShown."""
        try:
            return self.sides.at_once(self._fetch, sorted(ids))
        except ApiError as error:
            if error.status >= 500:
                raise
            raise NotShown from error

    def differing(self, ids: Set[str]) -> Set[str]:
        """Returns the rows of the source that the destination does not show equal."""
        wanted, actual = self.fetched(ids)
        return {
            row_id
            for row_id in wanted.keys() - self._refused.keys()
            if row_id not in actual
            or (
                self._paths(*wanted[row_id], *actual[row_id])
                and not self._was_written_early(wanted[row_id][0], actual[row_id][0])
            )
        }

    def _record(self, ids: Sequence[str]) -> DeliveryRecord:
        """Returns what the run recorded about the rows."""
        if self.pair.seen is None:
            return DeliveryRecord({}, {}, frozenset())
        source_id = self.pair.source_id
        with contextlib.closing(SeenRows(self.pair.seen)) as seen:
            failed = frozenset(seen.failed(source_id, ANY_ROUND, FAILED_READ))
            if not seen.holds_rows():
                return DeliveryRecord({}, {}, failed)
            outcomes = seen.outcomes_of(source_id, ids)
            return DeliveryRecord(outcomes, seen.dest_xacts(source_id, ids), failed)

    def _is_newer(self, form: Form, delivered: Optional[Tuple[int, str]]) -> bool:
        """Whether the source changed the row after the copy."""
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

    def _paths(
        self,
        wanted_row: Mapping[str, Any],
        wanted: Form,
        found_row: Mapping[str, Any],
        actual: Form,
    ) -> List[str]:
        """Returns the paths at which the destination's row is not what it should be."""
        tolerated = self.result.tolerated
        if wanted.text == actual.text:
            if wanted.exact != actual.exact:
                tolerated["timestamp"] += max(wanted.stamps, actual.stamps)
            return []
        left, right = json.loads(wanted.text), json.loads(actual.text)
        if self.pair.source_version is not None:
            # comments belong to the rows of today: a server may show newer ones at a version
            left.pop(COMMENTS, None)
            right.pop(COMMENTS, None)
        if "origin" in right and "origin" not in left:
            del right["origin"]
            tolerated["origin"] += 1
        pin = _pin_of_origin(right)
        is_wanted = _pin_of_origin(left) is not None
        is_there = pin is not None and not is_wanted
        if is_there and not (
            pin == _pin_of_origin(wanted_row) and not has_same_number(self.context.catalog.run, pin)
        ):
            # a transaction that the destination set by itself
            del right["origin"]["_xact_id"]
            tolerated["version"] += 1
        self._expect_earlier_copies(wanted_row, found_row, left, right)
        shows_comments = self.sides.dest.api.capabilities.shows_comments
        if COMMENTS in left and COMMENTS not in found_row and not shows_comments:
            del left[COMMENTS]
            tolerated["comments_unreadable"] += 1
        _ignore_dates_of_undated(left.get(COMMENTS) or {}, right.get(COMMENTS) or {}, tolerated)
        return first_paths(differing_paths(left, right, "", tolerated))

    def _expect_earlier_copies(
        self,
        wanted_row: Mapping[str, Any],
        found_row: Mapping[str, Any],
        left: JsonObject,
        right: JsonObject,
    ) -> None:
        """Make both sides alike at versions that another start knew or did not know, and at copies
        of attachments that the source lost later.
        """
        tolerated = self.result.tolerated
        if self._is_version_of_prompt(wanted_row, left, right):
            remove(right, PROMPT_VERSION)
            tolerated["version"] += 1
        for place in self._versions_nobody_asked_for(left, right):
            remove(left, place)
            tolerated["version"] += 1
        dest_org_id = self.context.catalog.dest.org_id
        for place in attachment_places(wanted_row):
            path = (*place, "key")
            copy = dest_attachment_key(dest_org_id, value_at(wanted_row, path))
            if value_at(left, path) == UNREADABLE_BYTES and value_at(found_row, path) == copy:
                set_at(left, path, value_at(right, path))

    def _versions_nobody_asked_for(self, left: JsonObject, right: JsonObject) -> List[Path]:
        """Returns the places of versions of prompts and functions that only the source's row has.

        Without --history, a row is written without one that is the latest. An environment that
        keeps it makes it known later; rows are not written again for that.
        """
        is_of_dataset = value_at(left, ("origin", "object_type")) == DATASETS.kind
        if self.context.catalog.settings.history or is_of_dataset:
            return []
        return [
            place
            for place in VERSION_PLACES
            if value_at(left, place) is not None and value_at(right, place) is None
        ]

    def _is_version_of_prompt(
        self, wanted_row: Mapping[str, Any], left: JsonObject, right: JsonObject
    ) -> bool:
        """Whether only the destination's row has the version of its prompt, and that is the right
        one: a run with --history wrote it.
        """
        wanted, there = value_at(wanted_row, PROMPT_VERSION), value_at(right, PROMPT_VERSION)
        if wanted is None or there is None or value_at(left, PROMPT_VERSION) is not None:
            return False
        prompt = value_at(wanted_row, PROMPT_PLACE)
        return is_version_there(self.context.catalog, PROMPT_PIN, prompt, there)


def _ignore_dates_of_undated(ours: JsonObject, theirs: JsonObject, tolerated: Counter[str]) -> None:
    """Remove the dates that the destination gave to comments without one."""
    for comment_id, (date, _) in ours.items():
        if date is None and comment_id in theirs:
            theirs[comment_id][0] = None
            tolerated["unset"] += 1


def _lacks_only_parts(wanted: Form, actual: Form) -> bool:
    """Whether the only difference is that parts which a server indexes later are not shown."""
    left, right = json.loads(wanted.text), json.loads(actual.text)
    lacking = {name for name in SHOWN_LATER if left.get(name) and not right.get(name)}
    others = (left.keys() | right.keys()) - lacking - {"origin"}
    return bool(lacking) and all(left.get(name) == right.get(name) for name in others)


def _print(wanted: Optional[FoundRow], actual: Optional[FoundRow]) -> str:
    """Returns a text that identifies the difference between both sides of a row."""
    return difference_print(
        *(text_digest(row[1].text).hex() if row else "" for row in (wanted, actual))
    )


def _origin_pin(wanted: Mapping[str, Any], actual: Mapping[str, Any]) -> Optional[OriginPin]:
    """Returns the version of a dataset row that both rows name as their origin."""
    left, right = wanted.get("origin"), actual.get("origin")
    if not (isinstance(left, dict) and isinstance(right, dict)):
        return None
    xacts = xact_of(left.get("_xact_id")), xact_of(right.get("_xact_id"))
    is_of_dataset = left.get("object_type") == right.get("object_type") == DATASETS.kind
    if not (is_of_dataset and all(xacts)):
        return None
    return OriginPin(str(left["object_id"]), str(right["object_id"]), *xacts, str(left["id"]))


def _by(
    pins: Iterable[OriginPin], place_of: Callable[[OriginPin], Tuple[Any, ...]]
) -> List[Tuple[Tuple[Any, ...], List[OriginPin]]]:
    groups: Dict[Tuple[Any, ...], List[OriginPin]] = {}
    for pin in sorted(pins):
        groups.setdefault(place_of(pin), []).append(pin)
    return list(groups.items())


def _pin_of_origin(row: Mapping[str, Any]) -> Any:
    origin = row.get("origin")
    return origin.get("_xact_id") if isinstance(origin, dict) else None
