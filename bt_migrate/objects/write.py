"""Requests that write one object to the destination, on data planes of different ages."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, TypeVar

from bt_migrate.api.answers import folded, object_with_id
from bt_migrate.api.client import Api
from bt_migrate.api.request import Answer
from bt_migrate.errors import AnswerError, ApiError, NetworkError, Route
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.references import Path, without
from bt_migrate.model.resource import OWNER, PROJECT, Resource
from bt_migrate.objects.decide import fingerprint, natural_key, not_kept, owner_fields
from bt_migrate.objects.paths import list_of_owner, object_path
from bt_migrate.objects.proof import FOUND_EXISTING
from bt_migrate.objects.unknown_fields import unknown_places

T = TypeVar("T")

LOOK_UP_PAGE = 100
# A read right after a write may still show the object as it was.
PAUSES_BEFORE_READS_S = (0.0, 0.5, 1.5)
# a field that changes nothing of what an object does
DESCRIPTION = "description"
# Answers to an object that is complete without the field that the destination does not take.
REFUSED = frozenset((400, 403, 404, 422))


def without_unknown_fields(
    resource: Resource, body: JsonObject, send: Callable[[JsonObject], T]
) -> Tuple[T, List[Path]]:
    """Send the body. Fields that the server refuses as unknown are left out, also nested ones.

    Returns the answer and the places of these fields. See `may_lack` for those that are kept.
    """
    left_out: List[Path] = []
    sent = body
    while True:
        try:
            return send(sent), left_out
        except ApiError as error:
            places = unknown_places(error.body, sent) if error.refuses_content else []
            if error.status in REFUSED:
                places = places or [(name,) for name in resource.if_ours if name in sent]
            if not places or not all(may_lack(resource, sent, place) for place in places):
                raise
            sent = without(sent, places)
            left_out += places


def may_lack(resource: Resource, body: Mapping[str, Any], place: Path) -> bool:
    """Whether an object without the field is still the object, only less of it.

    What grants access would grant something else, and what acts outside would act otherwise.
    """
    name = place[0]
    if resource.grants_access or (resource.acts(body) and name != DESCRIPTION):
        return False
    return name in resource.create and name not in (*resource.needed, *resource.key)


def look_up(dest: Api, resource: Resource, body: JsonObject) -> Optional[Dict[str, Any]]:
    """The destination's object that has the natural key now, asked for by that key if the kind's
    list takes it.

    Also one whose key differs in case, blanks or Unicode form, where the server takes that for the
    same: it answers with nothing else.
    """
    field = resource.key[-1]
    path = resource.path
    params = {resource.look_up_by: body[field]} if resource.look_up_by else {}
    if resource.scope == PROJECT:
        path = resource.path_in(body["project_id"])
        params["project_id"] = body["project_id"]
    elif resource.scope == OWNER:
        path, of_owner = list_of_owner(resource, (body["object_type"], body["object_id"]))
        params.update(of_owner)
    key = natural_key(resource, body)
    page_size = LOOK_UP_PAGE if resource.paged else 0
    listed = [
        obj
        for obj in dest.list(path, params, page_size=page_size)
        if resource.scope != PROJECT or obj.get("project_id") == body["project_id"]
        if not obj.get("deleted_at")
    ]
    exact = [obj for obj in listed if natural_key(resource, obj) == key]
    # An ACL of a permission has no role, and no other name.
    name = str(body.get(field) or "")
    similar = [obj for obj in listed if name and folded(str(obj.get(field))) == folded(name)]
    if not exact and len(similar) == len(listed):
        return next(iter(similar), None)
    return next(iter(exact), None)


def create_or_find(dest: Api, resource: Resource, body: JsonObject, project_id: str) -> Answer:
    """POST an object; PUT where its path names it."""
    if resource.below_owner:
        path = object_path(resource, body, project_id)
        return dest.create(path, _without_key(dest, resource, body), method="PUT")
    path = resource.path_in(project_id)
    if not resource.versioned:
        return dest.create(path, body)
    return sent_once(
        dest,
        lambda: dest.create(path, body, once=True),
        lambda: _carried_out(dest, resource, body),
    )


def sent_once(dest: Api, send: Callable[[], T], find_written: Callable[[], Optional[T]]) -> T:
    """Send a write that would make another version if it were carried out twice.

    A try without an answer may have been carried out: it is repeated only if `find_written`
    returns None. Raises ApiError or NetworkError after as many tries as other requests get.
    """
    transport = dest.transport
    for attempt in range(transport.limits.attempts + 1):
        try:
            return send()
        except (ApiError, NetworkError) as error:
            if isinstance(error, ApiError) and not _may_be_carried_out(error):
                raise
            written = find_written()
            if written is not None:
                return written
            if attempt == transport.limits.attempts:
                raise
            transport.wait(transport.backoff_s(attempt + 1))
    raise AssertionError("not reached")


def _may_be_carried_out(error: ApiError) -> bool:
    """Whether a server with this answer may have written the object all the same."""
    return error.status >= 500 or error.status in (200, 201, 408)


def _carried_out(dest: Api, resource: Resource, body: JsonObject) -> Optional[Answer]:
    """Returns the object that is there after a try without an answer.

    One with other content counts as found: somebody else created it a moment ago.
    """
    there = look_up(dest, resource, body)
    if there is None:
        return None
    path = object_path(resource, there, str(body.get("project_id", "")))
    # A list may not show all fields.
    there = dest.get(path, check=object_with_id(there["id"]))
    is_ours = fingerprint(resource, there) == fingerprint(resource, body)
    return Answer(there, {} if is_ours else {FOUND_EXISTING: "true"})


def replace_object(dest: Api, resource: Resource, body: JsonObject, object_id: str) -> JsonObject:
    """PUT an object that is there."""
    if resource.below_owner:
        return dict(create_or_find(dest, resource, body, "").json)
    replaced: JsonObject = dest.put(resource.path, resource.without_patch_only(body), object_id)
    return replaced


def _without_key(dest: Api, resource: Resource, body: JsonObject) -> JsonObject:
    """What is sent to a path that holds the natural key."""
    sent = {name: value for name, value in body.items() if name not in resource.key}
    return {**sent, "org_name": dest.org_name} if dest.org_name else sent


def read_back(
    dest: Api,
    resource: Resource,
    request: Tuple[str, str, JsonObject],
    existing: Mapping[str, Any],
    written: JsonObject,
) -> JsonObject:
    """The object as a read shows it after the write (method, path, body) of what was `existing`.

    Raises AnswerError if it is as before: the server confirmed a change and did not keep it.
    """
    method, path, sent = request
    now, lost = written, not_kept(resource, (method, sent), existing, written)
    for pause_s in () if resource.below_owner else PAUSES_BEFORE_READS_S:
        dest.transport.wait(pause_s)
        now = dest.get(path, owner_fields(resource, sent), check=object_with_id(written["id"]))
        lost = not_kept(resource, (method, sent), existing, now)
        if not lost:
            break
    if lost:
        problem = f"the destination did not keep the change of {', '.join(lost)}; run again"
        raise AnswerError(Route(dest.side, method, path), 200, problem)
    return now
