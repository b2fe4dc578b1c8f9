"""Requests that write one object to the destination, on data planes of different ages."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, Optional, Tuple, TypeVar

from bt_migrate.api.answers import folded, object_with_id
from bt_migrate.api.client import Api
from bt_migrate.api.request import Answer
from bt_migrate.errors import ApiError
from bt_migrate.model.resource import OWNER, PROJECT, Resource
from bt_migrate.objects.decide import natural_key
from bt_migrate.objects.paths import list_of_owner, object_path

T = TypeVar("T")
Body = Dict[str, Any]

# How a data plane refuses a field that it does not know (recorded; the second is another version
# of the same checker).
# assumption: unknown_fields_are_refused
UNKNOWN_FIELD = re.compile(
    r"Extraneous key ['\"]([^'\"]+)['\"] at path \[\]|Unrecognized key\(s\) in object: '([^']+)'"
)
LOOK_UP_PAGE = 100


def without_unknown_fields(
    resource: Resource, body: Body, send: Callable[[Body], T]
) -> Tuple[T, List[str]]:
    """Send the body. Fields that the server refuses as unknown are left out, one by one.

    Returns the answer and the names of these fields. A field of the natural key is never left out.
    """
    left_out: List[str] = []
    while True:
        sent = {name: value for name, value in body.items() if name not in left_out}
        try:
            return send(sent), left_out
        except ApiError as error:
            name = _unknown_field(error)
            if name is None or name not in sent or name not in resource.create:
                raise
            if name in resource.key:
                raise
            left_out.append(name)


def _unknown_field(error: ApiError) -> Optional[str]:
    match = UNKNOWN_FIELD.search(error.body) if error.refuses_content else None
    return (match[1] or match[2]) if match else None


def look_up(dest: Api, resource: Resource, body: Body) -> Optional[Dict[str, Any]]:
    """The destination's object that has the natural key now, asked for by that key.

    Also one whose key differs in case, blanks or Unicode form, where the server takes that for the
    same: it answers with nothing else.
    """
    field = resource.key[-1]
    path, params = resource.path, {resource.look_up_by: body[field]}
    if resource.scope == PROJECT:
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
    similar = [obj for obj in listed if folded(str(obj.get(field))) == folded(str(body[field]))]
    if not exact and len(similar) == len(listed):
        return next(iter(similar), None)
    return next(iter(exact), None)


def create_or_find(dest: Api, resource: Resource, body: Body, project_id: str) -> Answer:
    """POST an object; PUT where its path names it."""
    if resource.below_owner:
        path = object_path(resource, body, project_id)
        return dest.create(path, _without_key(dest, resource, body), method="PUT")
    return dest.create(resource.path_in(project_id), body)


def replace_object(dest: Api, resource: Resource, body: Body, object_id: str) -> Body:
    """PUT an object that is there."""
    if resource.below_owner:
        return dict(create_or_find(dest, resource, body, "").json)
    replaced: Body = dest.put(resource.path, body, object_id)
    return replaced


def _without_key(dest: Api, resource: Resource, body: Body) -> Body:
    """What is sent to a path that holds the natural key."""
    sent = {name: value for name, value in body.items() if name not in resource.key}
    return {**sent, "org_name": dest.org_name} if dest.org_name else sent


def read_back(dest: Api, resource: Resource, written: Dict[str, Any]) -> Dict[str, Any]:
    """The object as a later read shows it; the answer itself where that is the same."""
    if not resource.sparse_answer:
        return written
    path = f"{resource.path}/{written['id']}"
    now: Dict[str, Any] = dest.get(path, check=object_with_id(written["id"]))
    return now
