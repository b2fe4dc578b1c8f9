"""Turns a source row into an insertable row. Pure.

Kept unchanged: id, created, span ids, tags, scores, metrics, context, facets, and every value of
input, output, expected, error and metadata that is not a reference. Rewritten: `origin`, the prompt
that a span was made with (metadata.prompt, written by the SDKs), review assignments, and any string
in metadata, context or span_attributes that is a source id. Left unchanged and reported: source ids
inside what users wrote (input, output, …).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from bt_migrate.model.references import (
    Path,
    Resolve,
    ResolveVersion,
    no_version,
    rewrite_known_ids,
    strings,
)
from bt_migrate.model.resource import Pin
from bt_migrate.model.resource_table import CALLABLE
from bt_migrate.model.resources import ROW_KINDS, ROW_SERVER_FIELDS, TARGETS_OF_TYPE, RowKind

# Metadata key that holds the ids of the users to whom a row is assigned for review.
ASSIGNMENTS = "~__bt_assignments"
ASSIGNMENTS_PLACE = ("metadata", ASSIGNMENTS)
# Fields in which a source id is a reference. In all other fields it is user data.
REFERENCE_FIELDS = ("metadata", "context", "span_attributes")
# metadata key: the parent of an OpenTelemetry span, as a text with a prefix
PARENT = "braintrust.parent"
PARENT_TARGETS = {"project_id": ("projects",), "experiment_id": ("experiments",)}
# metadata keys that hold references
NAMED_REFERENCES = frozenset(("prompt", ASSIGNMENTS, PARENT))
# The references in metadata.prompt: field -> resources that it can name.
PROMPT_REFERENCE = {
    "id": CALLABLE,
    "project_id": ("projects",),
    "prompt_session_id": ("playgrounds",),
}
ORIGIN_PIN = "origin._xact_id"
# Versions in a row.
ORIGIN_VERSION: Path = ("origin", "_xact_id")
PROMPT_PLACE = ("metadata", "prompt")
PROMPT_VERSION: Path = (*PROMPT_PLACE, "version")
VERSION_PLACES: Tuple[Path, ...] = (ORIGIN_VERSION, PROMPT_VERSION)
PROMPT_ID_PLACE = (*PROMPT_PLACE, "id")
PROMPT_PIN = Pin("metadata.prompt.version", CALLABLE)
# Place of a reference -> the version next to it.
PIN_BESIDE = {("origin",): ORIGIN_PIN, PROMPT_ID_PLACE: PROMPT_PIN.path}
# Read as part of the row, written as separate records.
COMMENTS = "comments"
# Fields that can become JSON attachments if a row is too large.
SPILLABLE = ("input", "output", "metadata", "expected", "error")

# Fields with the audit source and metadata of a comment, in all spellings.
SOURCE_FIELDS = ("source", "audit_source", "_audit_source")
METADATA_FIELDS = ("metadata", "audit_metadata", "_audit_metadata")
# The audit data of a row that was only created.
UPSERT = {"action": "upsert"}
# Fields in which a comment can name its author.
AUTHOR_FIELDS = ("user", "user_id", "author", "user_email")

# Fields that no insert takes although their content is kept, or reported elsewhere.
_LOSES_NOTHING = frozenset((*ROW_SERVER_FIELDS, COMMENTS, "audit_data"))
_INSERTED = {kind.name: frozenset(kind.fields) for kind in ROW_KINDS.values()}


@dataclass
class RewriteNotes:
    """What rewriting one row removed.

    `unresolved`: references without a counterpart, as (path, resources, source id). `pins`: paths
    of version pins.
    """

    unresolved: List[Tuple[Path, Tuple[str, ...], str]] = field(default_factory=list)
    pins: List[str] = field(default_factory=list)


# assumption: rows_keep_what_is_sent
def insertable_row(kind: RowKind, row: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the fields that the insert endpoint takes, unchanged (nulls included)."""
    inserted = _INSERTED[kind.name]
    return {name: value for name, value in row.items() if name in inserted}


class FieldSplit:
    """Separates what an insert accepts from what is lost, in rows of one kind.

    Rows of a page mostly have the same fields in the same order, so the names are looked up only
    for a row with other fields than the row before.
    """

    def __init__(self, kind: RowKind) -> None:
        self._inserted = _INSERTED[kind.name]
        # of the last row: all fields; those to remove; those that are lost if they have content
        self._names: List[str] = []
        self._removed: List[str] = []
        self._doubtful: List[str] = []

    def of(self, row: Mapping[str, Any]) -> Tuple[Dict[str, Any], List[str]]:
        """Returns the insertable row and the names of fields with content that no insert accepts.

        These are classifications and new fields; `lost_history` covers the audit history.
        """
        if [*row] != self._names:
            self._names = [*row]
            self._removed = [name for name in row if name not in self._inserted]
            self._doubtful = [name for name in self._removed if name not in _LOSES_NOTHING]
        out = dict(row)
        for name in self._removed:
            del out[name]
        return out, [name for name in self._doubtful if row[name]]


def held_fields(kind: RowKind, row: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the insertable fields that are not null.

    A row is read with null for each field that it does not have.
    """
    return {name: row[name] for name in kind.fields if row.get(name) is not None}


# assumption: plain_rows_have_upserts_only
def lost_history(row: Mapping[str, Any]) -> Dict[str, int]:
    """Returns action -> number of entries of the audit history that cannot be carried.

    Every row of the hosted service is read with its history. One plain `upsert` is the creation of
    the row: nothing is lost with it. Merges, comments and later edits are lost.
    """
    audit = row.get("audit_data")
    if not audit:
        return {}
    entries = audit if isinstance(audit, list) else [audit]
    if len(entries) == 1 and _is_plain_upsert(entries[0]):
        return {}
    actions = Counter(_audit_action(entry) for entry in entries)
    if any(_is_plain_upsert(entry) for entry in entries):
        actions["upsert"] -= 1
    return {action: count for action, count in actions.items() if count}


def _is_plain_upsert(entry: Any) -> bool:
    if not isinstance(entry, dict) or entry.get("metadata"):
        return False
    return entry.get("audit_data") == UPSERT or _audit_action(entry) == "upsert"


def _audit_action(entry: Any) -> str:
    """Returns the action of {"audit_data": {"action"}, …} and of {"action", …}."""
    inner = entry.get("audit_data", entry) if isinstance(entry, dict) else None
    action = inner.get("action") if isinstance(inner, dict) else None
    return action if isinstance(action, str) else "unknown"


def rewrite_row(
    row: Dict[str, Any],
    resolve: Resolve,
    resolve_version: ResolveVersion = no_version,
    *,
    known_ids: Mapping[str, Tuple[str, ...]],
    new_names: Optional[Mapping[str, str]] = None,
) -> RewriteNotes:
    """Rewrite the references of an insertable row in place.

    Nested values that the row shares with the source row are copied before they are changed.
    `known_ids`: source id -> resources. `new_names`: the new names of renamed projects.
    """
    notes = RewriteNotes()
    for name in REFERENCE_FIELDS:
        if name in row:
            row[name] = copied(row[name])
    _rewrite_origin(row, resolve, resolve_version, notes)
    metadata = row.get("metadata")
    if isinstance(metadata, dict):
        prompt = _prompt_of(metadata, known_ids)
        if prompt is not None:
            if rewrite_prompt_version(prompt, resolve_version):
                notes.pins.append(PROMPT_PIN.path)
            _rewrite_prompt(prompt, resolve, notes)
        _rewrite_assignments(metadata, resolve, notes)
        _rewrite_parent(metadata, resolve, new_names or {})
    for name in REFERENCE_FIELDS:
        _rewrite_strays(row, name, resolve, known_ids, notes)
    return notes


def _rewrite_version(holder: Dict[str, Any], pin: Pin, resolve_version: ResolveVersion) -> bool:
    """Rewrite a version pin; remove it if it has no counterpart.

    Returns whether it was removed.
    """
    name = pin.path.rpartition(".")[2]
    version = holder.pop(name, None)
    if version is None:
        return False
    new = resolve_version(pin, holder, version)
    if new is not None:
        holder[name] = new
    return new is None


def rewrite_origin_version(origin: Dict[str, Any], resolve_version: ResolveVersion) -> bool:
    """Rewrite the version in an origin that still has the source's ids: see `_rewrite_version`."""
    pin = Pin(ORIGIN_PIN, _targets_of(origin), of=("object_id",), row="id")
    return _rewrite_version(origin, pin, resolve_version)


def rewrite_prompt_version(prompt: Dict[str, Any], resolve_version: ResolveVersion) -> bool:
    """Rewrite the version of a prompt that still has the source's ids: see `_rewrite_version`."""
    return _rewrite_version(prompt, PROMPT_PIN, resolve_version)


def _targets_of(origin: Mapping[str, Any]) -> Tuple[str, ...]:
    return TARGETS_OF_TYPE.get(str(origin.get("object_type")), ())


def _rewrite_origin(
    row: Dict[str, Any], resolve: Resolve, resolve_version: ResolveVersion, notes: RewriteNotes
) -> None:
    """Rewrite the origin; remove it if its object has no counterpart.

    The origin is {object_type, object_id, id, _xact_id?, created?}.
    """
    origin = row.get("origin")
    if not isinstance(origin, dict):
        return
    origin = dict(origin)
    if rewrite_origin_version(origin, resolve_version):
        notes.pins.append(ORIGIN_PIN)
    targets = _targets_of(origin)
    source_id = str(origin.get("object_id"))
    new = resolve(targets, source_id)
    if new is None:
        notes.unresolved.append((("origin",), targets, source_id))
        del row["origin"]
        return
    origin["object_id"] = new
    if targets == CALLABLE:
        # The origin of a prompt repeats the prompt's id as the row id.
        origin["id"] = resolve(targets, str(origin.get("id"))) or origin.get("id")
    row["origin"] = origin


def _prompt_of(
    metadata: Dict[str, Any], known_ids: Mapping[str, Tuple[str, ...]]
) -> Optional[Dict[str, Any]]:
    """Returns metadata.prompt if it is the prompt that the SDKs write when they build one.

    That is {id, project_id, version, variables, …} with a source id as id or project: a user may
    have a field of the same name.
    """
    prompt = metadata.get("prompt")
    if not isinstance(prompt, dict):
        return None
    names_source = _is_known(prompt.get("id"), known_ids) or _is_known(
        prompt.get("project_id"), known_ids
    )
    return prompt if names_source else None


def _rewrite_prompt(prompt: Dict[str, Any], resolve: Resolve, notes: RewriteNotes) -> None:
    for name, targets in PROMPT_REFERENCE.items():
        if not isinstance(prompt.get(name), str):
            continue
        new = resolve(targets, prompt[name])
        if new is None:
            notes.unresolved.append((("metadata", "prompt", name), targets, prompt.pop(name)))
        else:
            prompt[name] = new


def _is_known(value: Any, known_ids: Mapping[str, Tuple[str, ...]]) -> bool:
    return isinstance(value, str) and value in known_ids


def _rewrite_assignments(metadata: Dict[str, Any], resolve: Resolve, notes: RewriteNotes) -> None:
    users = metadata.get(ASSIGNMENTS)
    if not isinstance(users, list):
        return
    new_users = []
    for position, user in enumerate(users):
        new = resolve(("users",), user) if isinstance(user, str) else user
        if new is not None:
            new_users.append(new)
        elif user is not None:
            notes.unresolved.append(((*ASSIGNMENTS_PLACE, position), ("users",), user))
    metadata[ASSIGNMENTS] = new_users


def _rewrite_parent(
    metadata: Dict[str, Any], resolve: Resolve, new_names: Mapping[str, str]
) -> None:
    """Rewrite the parent of an OpenTelemetry span, `experiment_id:<id>` or `project_name:<name>`.

    A parent without a counterpart stays, like any id in a text.
    """
    parent = metadata.get(PARENT)
    if not isinstance(parent, str):
        return
    kind, colon, value = parent.partition(":")
    new = new_names.get(value) if kind == "project_name" else None
    if kind in PARENT_TARGETS:
        new = resolve(PARENT_TARGETS[kind], value)
    if colon and new is not None:
        metadata[PARENT] = f"{kind}:{new}"


def _rewrite_strays(
    row: Dict[str, Any],
    name: str,
    resolve: Resolve,
    known_ids: Mapping[str, Tuple[str, ...]],
    notes: RewriteNotes,
) -> None:
    """Replace each string of the field that is a source id; remove those without a counterpart."""
    texts = strings(row.get(name), (name,))
    notes.unresolved.extend(rewrite_known_ids(row, texts, resolve, known_ids))


def may_hold_references(row: Mapping[str, Any]) -> bool:
    """Whether the row has an `origin` or one of NAMED_REFERENCES.

    References at other places are found by their ids.
    """
    metadata = row.get("metadata")
    named = isinstance(metadata, dict) and not NAMED_REFERENCES.isdisjoint(metadata)
    return named or row.get("origin") is not None


def is_assignment(path: Path) -> bool:
    """Whether the place is one of the users to whom a row is assigned."""
    return path[:-1] == ASSIGNMENTS_PLACE


def can_be_merged(path: Path) -> bool:
    """Whether an `_is_merge` insert can add a reference later without the rest of the row.

    A merge joins objects at any depth but replaces lists. So a reference in a list is added with
    the whole list, unless it holds nothing but references.
    """
    return is_assignment(path) or list_around(path) == path


def list_around(path: Path) -> Path:
    """Returns the place of the outermost list around a place; the place itself without one."""
    steps = (number for number, step in enumerate(path) if isinstance(step, int))
    return path[: next(steps, len(path))]


def merged_at(path: Path, value: Any) -> Dict[str, Any]:
    """Returns the fields that set a place inside objects."""
    for step in reversed(path):
        value = {step: value}
    return dict(value or {})


def kept_for_merges(row: Mapping[str, Any]) -> Dict[Path, Any]:
    """Returns place -> the source's value there, which a later merge needs.

    These are the origin, the assigned users, and the prompt of a span.
    """
    value_at_place: Dict[Path, Any] = {}
    origin = row.get("origin")
    if isinstance(origin, dict):
        value_at_place["origin",] = dict(origin)
    metadata = row.get("metadata")
    users = metadata.get(ASSIGNMENTS) if isinstance(metadata, dict) else None
    if isinstance(users, list):
        value_at_place[ASSIGNMENTS_PLACE] = list(users)
    prompt = metadata.get("prompt") if isinstance(metadata, dict) else None
    if isinstance(prompt, dict) and isinstance(prompt.get("id"), str) and prompt.get("version"):
        value_at_place[PROMPT_PLACE] = {"id": prompt["id"], "version": prompt["version"]}
    return value_at_place


def deferred_merge(path: Path, new_id: str, kept: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """Returns the fields that an `_is_merge` insert adds once the referenced object exists.

    `kept`: what `kept_for_merges` returned of the place, with the destination's version.
    """
    if path == ("origin",) and kept:
        return _merged_origin(kept, new_id)
    if path == PROMPT_ID_PLACE and kept:
        return {"metadata": {"prompt": {**kept, "id": new_id}}}
    return merged_at(path, new_id)


def _merged_origin(origin: Mapping[str, Any], new_id: str) -> Dict[str, Any]:
    merged = {**origin, "object_id": new_id}
    if origin.get("id") == origin.get("object_id"):
        # The origin of a prompt repeats the prompt's id as the row id.
        merged["id"] = new_id
    return {"origin": merged}


def comments_of(row: Mapping[str, Any]) -> List[Any]:
    """Returns the comments of a row. Their form is not specified: they can be any JSON values."""
    value = row.get(COMMENTS)
    comments = value if isinstance(value, list) else [value]
    return [comment for comment in comments if comment]


# assumption: comments_are_kept
def comment_record(row_id: str, comment: Any) -> Optional[Dict[str, Any]]:
    """Returns a comment as the SDKs write it (POST /logs3), None without an id or a text.

    It has its own id and date, and its row as origin. An author cannot be set: the original one is
    kept in the audit metadata.
    """
    if not isinstance(comment, Mapping):
        return None
    inner = comment.get("text") if comment.get("comment") is None else comment["comment"]
    body = dict(inner) if isinstance(inner, Mapping) else {"text": inner}
    if not comment.get("id") or body.get("text") is None:
        return None
    record = {
        "id": comment["id"],
        "created": comment.get("created"),
        "origin": {"id": row_id},
        "comment": body,
        "_audit_source": next(iter(_held(comment, SOURCE_FIELDS)), None),
        "_audit_metadata": _audit_metadata(comment) or None,
    }
    return {name: value for name, value in record.items() if value is not None}


def _audit_metadata(comment: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the audit metadata of a comment, in all spellings.

    The author and a second source, which cannot be set, are added to it.
    """
    audit: Dict[str, Any] = {}
    for held in reversed(_held(comment, METADATA_FIELDS)):
        audit.update(held if isinstance(held, Mapping) else {"original_metadata": held})
    sources = _held(comment, SOURCE_FIELDS)
    if any(source != sources[0] for source in sources):
        audit["original_sources"] = sources
    author = {name: comment[name] for name in AUTHOR_FIELDS if comment.get(name)}
    if author:
        audit["original_author"] = author
    return audit


def _held(comment: Mapping[str, Any], names: Tuple[str, ...]) -> List[Any]:
    return [comment[name] for name in names if comment.get(name)]


def copied(value: Any) -> Any:
    """Returns a deep copy of a JSON value.

    `copy.deepcopy` needs two Python frames for each level, and a row may be nested as deep as the
    JSON reader accepts.
    """
    return json.loads(json.dumps(value))


def spill_order(row: Mapping[str, Any], write: Callable[[Any], bytes]) -> List[str]:
    """Returns the names of the fields that can become attachments, the largest first."""
    sizes = {name: len(write(row[name])) for name in SPILLABLE if row.get(name) is not None}
    return sorted(sizes, key=lambda name: -sizes[name])
