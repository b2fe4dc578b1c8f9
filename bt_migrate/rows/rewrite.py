"""Source row -> insertable row. Pure.

Kept as they are: id, created, span ids, tags, scores, metrics, context, facets, every value of input, output, expected, error
and metadata. Rewritten: `origin`, the prompt that a span was made with (metadata.prompt, written by the SDKs), review
assignments, and any string in metadata, context or span_attributes that is an id of the source. Left alone and told: ids inside
what users wrote (input, output, …).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from bt_migrate.model.references import Path, Resolve, remove, set_at, strings
from bt_migrate.model.resources import (
    CALLABLE,
    ROW_KINDS,
    ROW_SERVER_FIELDS,
    TARGETS_OF_TYPE,
    RowKind,
)

ASSIGNMENTS = "~__bt_assignments"  # metadata key: user ids a row is given to for review
REFERENCE_FIELDS = (
    "metadata",
    "context",
    "span_attributes",
)  # where ids are references; elsewhere they are a user's data
PROMPT_REFERENCE = {
    "id": CALLABLE,
    "project_id": ("projects",),
    "prompt_session_id": ("playgrounds",),
}
COMMENTS = "comments"  # read with the row, written as records of their own
SPILLABLE = (
    "input",
    "output",
    "metadata",
    "expected",
    "error",
)  # fields that may become JSON attachments of a row that is too large


_FIELDS = {kind.name: frozenset(kind.fields) for kind in ROW_KINDS.values()}
_NOT_INSERTED = (
    *ROW_SERVER_FIELDS,
    COMMENTS,
    "audit_data",
    "classifications",
)  # usual fields of a row as it is read
# Fields of a row as it is read that are written, or that say nothing which is lost without them.
_TAKEN = {name: ROW_SERVER_FIELDS | {COMMENTS} | fields for name, fields in _FIELDS.items()}
_USUAL = {name: taken | {"audit_data", "classifications"} for name, taken in _TAKEN.items()}


@dataclass
class RewriteNotes:
    """What a person should know of the rewriting of one row."""

    unresolved: List[Tuple[Path, Tuple[str, ...], str]] = field(
        default_factory=list
    )  # (path, resources, source id)
    pins: List[str] = field(default_factory=list)
    free_text: int = 0


def insertable_row(kind: RowKind, row: Mapping[str, Any]) -> Dict[str, Any]:
    """The fields of the row that its insert endpoint takes, untouched (nulls included)."""
    out, fields = dict(row), _FIELDS[kind.name]
    for name in _NOT_INSERTED:  # a pass over each of a million rows: this is the fastest way found
        out.pop(name, None)
    return (
        out
        if fields.issuperset(out)
        else {name: value for name, value in out.items() if name in fields}
    )


def held_fields(kind: RowKind, row: Mapping[str, Any]) -> Dict[str, Any]:
    """The same without nulls, which a reader is shown for what a row does not have."""
    return {name: row[name] for name in kind.fields if row.get(name) is not None}


def lost_row_fields(kind: RowKind, row: Mapping[str, Any]) -> List[str]:
    """Fields that hold something but that no insert takes (audit history, classifications, newer fields)."""
    if (
        _USUAL[kind.name].issuperset(row)
        and not row.get("audit_data")
        and not row.get("classifications")
    ):
        return []
    return [name for name in row.keys() - _TAKEN[kind.name] if row[name]]


def rewrite_row(
    row: Dict[str, Any], resolve: Resolve, known: Mapping[str, Tuple[str, ...]]
) -> RewriteNotes:
    """Rewrite the references of an insertable row in place (it is ours, and its nested values are replaced, not shared)."""
    notes = RewriteNotes()
    for name in REFERENCE_FIELDS:
        if name in row:
            row[name] = copy.deepcopy(row[name])
    _rewrite_origin(row, resolve, notes)
    metadata = row.get("metadata")
    if isinstance(metadata, dict):
        _rewrite_prompt(metadata, resolve, known, notes)
        _rewrite_assignments(metadata, resolve, notes)
    for name in REFERENCE_FIELDS:
        _rewrite_strays(row, name, resolve, known, notes)
    return notes


def _rewrite_origin(row: Dict[str, Any], resolve: Resolve, notes: RewriteNotes) -> None:
    """origin = {object_type, object_id, id, _xact_id?, created?}: a whole that means nothing without its object."""
    origin = row.get("origin")
    if not isinstance(origin, dict):
        return
    origin = dict(origin)
    if origin.pop("_xact_id", None) is not None:
        notes.pins.append("origin._xact_id")
    targets = TARGETS_OF_TYPE.get(str(origin.get("object_type")), ())
    new = resolve(targets, str(origin.get("object_id")))
    if new is None:
        notes.unresolved.append((("origin",), targets, str(origin.get("object_id"))))
        del row["origin"]
        return
    origin["object_id"] = new
    if targets == CALLABLE:  # a prompt's origin names its id again as the row id
        origin["id"] = resolve(targets, str(origin.get("id"))) or origin.get("id")
    row["origin"] = origin


def _rewrite_prompt(
    metadata: Dict[str, Any],
    resolve: Resolve,
    known: Mapping[str, Tuple[str, ...]],
    notes: RewriteNotes,
) -> None:
    """metadata.prompt = {id, project_id, version, variables, …}, written by the SDKs when a prompt is built.

    Only where its id or project is the source's: a field of that name may as well be somebody's own.
    """
    prompt = metadata.get("prompt")
    if not isinstance(prompt, dict) or not (
        _is_known(prompt.get("id"), known) or _is_known(prompt.get("project_id"), known)
    ):
        return
    if prompt.pop("version", None) is not None:
        notes.pins.append("metadata.prompt.version")
    for name, targets in PROMPT_REFERENCE.items():
        if isinstance(prompt.get(name), str):
            new = resolve(targets, prompt[name])
            if new is None:
                notes.unresolved.append((("metadata", "prompt", name), targets, prompt.pop(name)))
            else:
                prompt[name] = new


def _is_known(value: Any, known: Mapping[str, Tuple[str, ...]]) -> bool:
    return isinstance(value, str) and value in known


def _rewrite_assignments(metadata: Dict[str, Any], resolve: Resolve, notes: RewriteNotes) -> None:
    users = metadata.get(ASSIGNMENTS)
    if not isinstance(users, list):
        return
    pairs = [
        (user, resolve(("users",), user)) if isinstance(user, str) else (user, user)
        for user in users
    ]
    notes.unresolved.extend(
        (("metadata", ASSIGNMENTS), ("users",), user) for user, new in pairs if new is None
    )
    metadata[ASSIGNMENTS] = [new for _, new in pairs if new is not None]


def _rewrite_strays(
    row: Dict[str, Any],
    name: str,
    resolve: Resolve,
    known: Mapping[str, Tuple[str, ...]],
    notes: RewriteNotes,
) -> None:
    for path, text in reversed(list(strings(row.get(name), (name,)))):
        if text not in known:
            continue
        new = resolve(known[text], text)
        if new is None:
            notes.unresolved.append((path, known[text], text))
            remove(row, path)
        else:
            set_at(row, path, new)


def may_hold_references(row: Mapping[str, Any]) -> bool:
    """Whether one of the named places is filled; the pass over known ids is for the rest."""
    metadata = row.get("metadata")
    named = isinstance(metadata, dict) and ("prompt" in metadata or ASSIGNMENTS in metadata)
    return named or row.get("origin") is not None


def deferred_merge(
    path: Path, new_id: str, origin: Optional[Mapping[str, Any]]
) -> Optional[Dict[str, Any]]:
    """The fields that a later `_is_merge` insert adds to a row once the object it refers to exists; None where a merge cannot.

    Objects are merged at any depth, lists are replaced: a place inside a list cannot be reached.
    """
    if path == ("origin",):
        same = (
            {"id": new_id} if origin and origin.get("id") == origin.get("object_id") else {}
        )  # a prompt's origin names it twice
        return {"origin": {**origin, "object_id": new_id, **same}} if origin else None
    if not all(isinstance(step, str) for step in path):
        return None
    value: Any = new_id
    for step in reversed(path):
        value = {step: value}
    return dict(value)


def comments_of(row: Mapping[str, Any]) -> List[Any]:
    """The comments of a row as it is read. Their form is not specified: they may be anything."""
    found = row.get(COMMENTS)
    return [one for one in (found if isinstance(found, list) else [found]) if one]


def comment_record(row_id: str, comment: Any) -> Optional[Dict[str, Any]]:
    """A comment as the SDKs write it (POST /logs3): its own id and date, its row as origin. None for what holds no id or text.

    Authors cannot be set: who wrote it goes into the audit metadata beside what was there.
    """
    if not isinstance(comment, Mapping):
        return None
    inner = comment.get("text") if comment.get("comment") is None else comment["comment"]
    body = dict(inner) if isinstance(inner, Mapping) else {"text": inner}
    if not comment.get("id") or body.get("text") is None:
        return None
    author = {
        name: comment[name]
        for name in ("user", "user_id", "author", "user_email")
        if comment.get(name)
    }
    audit = comment.get("metadata") or comment.get("_audit_metadata") or {}
    if not isinstance(audit, Mapping):
        audit = {"original_metadata": audit}
    audit = {**audit, **({"original_author": author} if author else {})}
    record = {
        "id": comment["id"],
        "created": comment.get("created"),
        "origin": {"id": row_id},
        "comment": body,
    }
    source = comment.get("source") or comment.get("_audit_source")
    record.update(
        {
            name: value
            for name, value in (("_audit_source", source), ("_audit_metadata", audit))
            if value
        }
    )
    return {name: value for name, value in record.items() if value is not None}


def spill_order(row: Mapping[str, Any], write: Callable[[Any], bytes]) -> List[str]:
    """The fields of a row that can become attachments, largest first."""
    sizes = {name: len(write(row[name])) for name in SPILLABLE if row.get(name) is not None}
    return sorted(sizes, key=lambda name: -sizes[name])
