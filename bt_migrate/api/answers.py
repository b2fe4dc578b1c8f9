"""Checked access to what a server answered. No HTTP in here.

Nothing that a server answers is believed by its shape. A check is a function that takes a decoded
answer and returns what is wrong with it, "" if nothing is. The transport applies it to each answer,
asks again, and raises AnswerError, which names the route, the field and what was found instead.
Code behind a check can use the fields that the check names.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from bt_migrate.api.http import address_problem
from bt_migrate.api.transactions import is_key
from bt_migrate.errors import AnswerError, Route

# decoded JSON -> what is wrong, "" if nothing is
Check = Callable[[Any], str]
# names of fields and positions in lists
FieldPath = Tuple[Union[str, int], ...]

# fields of a created object that its answer must repeat, if it has them
IDENTIFYING = ("project_id", "name", "slug", "object_type", "object_id")
# names of this length may be cut by a server
FOLDED_CHARS = 32
# of an answer's text in a message
SHOWN_CHARS = 120
TYPE_NAMES: Dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}


def any_answer(_: Any) -> str:
    """The check for answers whose content is not used: it accepts every answer."""
    return ""


def an_object(*fields: str) -> Check:
    """The check for an object with these fields, each a text that is not empty."""

    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return f"the answer is {described(value)}, not an object"
        return next(filter(None, (_text_problem(value, field) for field in fields)), "")

    return check


def object_with_id(object_id: Optional[str] = None) -> Check:
    """The check for one object of the API; with an id, for this one and no other."""
    shape = an_object("id")

    def check(value: Any) -> str:
        problem = shape(value)
        if problem or object_id is None or value["id"] == object_id:
            return problem
        return f"it is another object: `id` is {described(value['id'])}, not {object_id!r}"

    return check


def created_object(expected: Mapping[str, Any]) -> Check:
    """The check for the answer of a creation: an object with an id, and not another object.

    An answer may lack fields, but those that identify the object are as they were sent.
    """
    shape = an_object("id")

    def check(value: Any) -> str:
        problem = shape(value)
        for name in () if problem else IDENTIFYING:
            wanted, answered = expected.get(name), value.get(name)
            if wanted is not None and answered is not None and not _same_key(wanted, answered):
                return f"it is another object: `{name}` is {described(answered)}, not {wanted!r}"
        return problem

    return check


def folded(text: str) -> str:
    """A name without what a server may ignore: case, blanks around it, its Unicode form."""
    return unicodedata.normalize("NFC", text).strip().casefold()


def _same_key(wanted: Any, answered: Any) -> bool:
    """Whether the server may have stored `wanted` as `answered`, see `folded`, or cut it."""
    if not isinstance(wanted, str) or not isinstance(answered, str):
        return bool(wanted == answered)
    wanted_text, answered_text = folded(wanted), folded(answered)
    return wanted_text == answered_text or (
        bool(answered_text)
        and wanted_text.startswith(answered_text)
        and len(answered_text) >= FOLDED_CHARS
    )


def list_of_objects(value: Any) -> str:
    """The check for a list endpoint: a bare array or `{"objects": [...]}` of objects with ids."""
    objects = value.get("objects") if isinstance(value, dict) else value
    name = "`objects`" if isinstance(value, dict) else "the answer"
    if not isinstance(objects, list):
        return f"{name} is {described(objects, value)}, not a list"
    by_id: Dict[str, Dict[str, Any]] = {}
    for position, item in enumerate(objects):
        if not isinstance(item, dict):
            return f"`objects[{position}]` is {described(item)}, not an object"
        problem = _text_problem(item, "id", f"objects[{position}].")
        if problem:
            return problem
        if by_id.setdefault(item["id"], item) != item:
            return f"`objects[{position}].id` is that of another object of the list"
    return ""


def rows_of_query(value: Any) -> str:
    """The check for a query: `{"data": [...]}` of objects."""
    rows = value.get("data") if isinstance(value, dict) else None
    if not isinstance(rows, list):
        return f"`data` is {described(rows, value)}, not a list of rows"
    if not {*map(type, rows)} <= {dict}:
        position = next(place for place, row in enumerate(rows) if not isinstance(row, dict))
        # without its content: it may be somebody's row
        return f"`data[{position}]` is {_type_name(rows[position])}, not a row"
    cursor = value.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        return f"`cursor` is {described(cursor)}, not a text"
    return ""


def rows_asked_for(row_ids: Collection[str], id_field: str, object_ids: Collection[str]) -> Check:
    """The check for a query of rows by id: each has one of these ids.

    Rows of a query for several objects name theirs in `id_field`; those of one need not name it.
    """

    def problem_of(row: Mapping[str, Any]) -> str:
        if not isinstance(row.get("id"), str) or row["id"] not in row_ids:
            return "was not asked for; the server ignores the filter of ids"
        holder = row.get(id_field)
        is_unnamed = holder is None and len(object_ids) == 1
        if not is_unnamed and not (isinstance(holder, str) and holder in object_ids):
            return f"is of another object than those asked for (`{id_field}`)"
        return ""

    return _each_row(problem_of)


def keys_after(after_key: Optional[str]) -> Check:
    """The check for a query of ids and keys, which are above `after_key` where that is given."""

    def problem_of(row: Mapping[str, Any]) -> str:
        key = row.get("_pagination_key")
        if not isinstance(row.get("id"), str) or not (isinstance(key, str) and is_key(key)):
            return "has no id or no pagination key"
        if after_key and key <= after_key:
            return f"is not after the key {after_key}; the server ignores the filter of keys"
        return ""

    return _each_row(problem_of)


def _each_row(problem_of: Callable[[Mapping[str, Any]], str]) -> Check:
    def check(value: Any) -> str:
        problem = rows_of_query(value)
        if problem:
            return problem
        for position, row in enumerate(value["data"]):
            problem = problem_of(row)
            if problem:
                return f"`data[{position}]` {problem}"
        return ""

    return check


def inserted_rows(row_ids: Sequence[str]) -> Check:
    """The check for an insert into one object: `row_ids` are those that were sent, in order."""
    return _names_rows("row_ids", row_ids)


def inserted_groups(kind: str, row_ids: Mapping[str, Sequence[str]]) -> Check:
    """The check for POST /v1/insert: `kind` -> object id -> `row_ids` of every row sent."""

    def check(value: Any) -> str:
        objects = value.get(kind) if isinstance(value, dict) else None
        if not isinstance(objects, dict):
            return f"`{kind}` is {described(objects, value)}, not an object"
        for object_id, ids in row_ids.items():
            answered = objects.get(object_id)
            name = f"{kind}.{object_id}"
            if not isinstance(answered, dict):
                return f"`{name}` is {described(answered)}, not an object"
            answered_ids = answered.get("row_ids")
            problem = _row_ids_problem(answered_ids, ids, f"{name}.row_ids", answered)
            if problem:
                return problem
        return ""

    return check


def logs3_rows(row_ids: Sequence[str]) -> Check:
    """The check for POST /logs3: `ids` are those of the records that were sent."""
    return _names_rows("ids", row_ids)


def _names_rows(field: str, row_ids: Sequence[str]) -> Check:
    shape = an_object()

    def check(value: Any) -> str:
        return shape(value) or _row_ids_problem(value.get(field), row_ids, field, value)

    return check


def logs3_records(number: int) -> Check:
    """The check for comments by POST /logs3: `ids` are as many as the records that were sent.

    Which ids the service names for comments was not recorded.
    """
    shape = an_object()

    def check(value: Any) -> str:
        problem = shape(value)
        if problem:
            return problem
        ids = value.get("ids")
        if not isinstance(ids, list):
            return f"`ids` is {described(ids, value)}, not a list"
        return "" if len(ids) == number else f"names {len(ids)} of {number} records"

    return check


def signed_download(value: Any) -> str:
    """The check for GET /attachment: `status.upload_status`, and `downloadUrl` if it is done."""
    problem = an_object()(value)
    if problem:
        return problem
    status = value.get("status")
    if not isinstance(status, dict):
        return f"`status` is {described(status, value)}, not an object"
    problem = _text_problem(status, "upload_status", "status.")
    if problem or status["upload_status"] != "done":
        return problem
    return _address_problem(value, "downloadUrl")


def signed_upload(*fields: str) -> Check:
    """The check for what can be uploaded to: `signedUrl`, `headers` and `fields` of texts.

    `fields`: further texts that the answer must hold.
    """
    return lambda value: _signed_upload_problem(value, fields)


def _signed_upload_problem(value: Any, fields: Sequence[str]) -> str:
    problem = an_object("signedUrl", *fields)(value) or _address_problem(value, "signedUrl")
    for name in ("headers", "fields"):
        given = {} if problem else value.get(name) or {}
        texts = isinstance(given, dict) and all(isinstance(item, str) for item in given.values())
        if not problem and not texts:
            problem = f"`{name}` is {described(given)}, not an object of texts"
    return problem


def error_free(value: Any) -> str:
    """The check for an answer of which only success is used: no error in a 2xx."""
    error = value.get("error") if isinstance(value, dict) else None
    return f"it holds an error: {described(error)}" if error else ""


# -- one field of an answer that has no check of its own


def text_at(route: Route, answer: Any, *place: Union[str, int]) -> str:
    """Returns the text in that place of the answer. Raises AnswerError."""
    value = value_at_place(answer, place)
    if not isinstance(value, str) or not value:
        raise AnswerError(route, 200, f"`{_name(place)}` is {described(value)}, not a text")
    return value


def value_at_place(answer: Any, place: FieldPath) -> Any:
    """Returns the value, None where anything on the way to it is missing or of another type."""
    for step in place:
        if isinstance(answer, dict) and isinstance(step, str):
            answer = answer.get(step)
        elif isinstance(answer, list) and isinstance(step, int) and step < len(answer):
            answer = answer[step]
        else:
            return None
    return answer


def objects_of(answer: Any) -> List[Dict[str, Any]]:
    """Returns the objects of an answer that `list_of_objects` has checked."""
    objects: List[Dict[str, Any]] = answer["objects"] if isinstance(answer, dict) else answer
    return objects


def _name(place: FieldPath) -> str:
    return ".".join(str(step) for step in place)


# -- words


def described(value: Any, whole: Any = None) -> str:
    """The value as a message shows it: its type, and its beginning. `whole`: shown if missing."""
    if value is None and whole is not None:
        return f"missing in {_shortened(whole)}"
    if value is None or value in ({}, []):
        return _shortened(value)
    return f"{_type_name(value)} ({_shortened(value)})"


def _type_name(value: Any) -> str:
    return TYPE_NAMES.get(type(value), "a value")


def _shortened(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (ValueError, RecursionError):
        text = str(type(value).__name__)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"


def _text_problem(value: Mapping[str, Any], field: str, prefix: str = "") -> str:
    text = value.get(field)
    if isinstance(text, str) and text:
        return ""
    shown = described(text, value) if text is None else described(text) if text else "empty"
    return f"`{prefix}{field}` is {shown}, not a text"


def _address_problem(value: Mapping[str, Any], field: str) -> str:
    problem = _text_problem(value, field) or address_problem(value[field])
    return problem if problem.startswith("`") or not problem else f"`{field}`: {problem}"


def _row_ids_problem(answered_ids: Any, row_ids: Sequence[str], name: str, whole: Any) -> str:
    """Every row that was sent is accounted for, and no other; in any order."""
    if answered_ids == list(row_ids):
        return ""
    if not isinstance(answered_ids, list):
        return f"`{name}` is {described(answered_ids, whole)}, not a list"
    if len(answered_ids) != len(row_ids):
        return f"`{name}` has {len(answered_ids)} ids for {len(row_ids)} rows"
    answered = Counter(row_id for row_id in answered_ids if isinstance(row_id, str))
    missing = next((row_id for row_id in row_ids if not answered[row_id]), None)
    return f"`{name}` lacks row {missing!r}" if missing is not None else ""
