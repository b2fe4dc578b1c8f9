"""POST one object, and find out whether that created it: see `proof`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Mapping

from bt_migrate.api.answers import object_with_id
from bt_migrate.api.request import Answer
from bt_migrate.model.resource import PROJECT, Resource
from bt_migrate.model.resource_table import EXPERIMENTS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import owner_fields
from bt_migrate.objects.paths import object_path
from bt_migrate.objects.proof import (
    FOUND_EXISTING,
    MARKED_IF_FOUND,
    contradicts,
    created_seconds,
    date_is_of_creation,
    exact_seconds,
)
from bt_migrate.objects.write import look_up

GATEWAY_SLACK_S = 300  # between the Date of an answer, which may be a gateway's, and the server


@dataclass(frozen=True)
class Created:
    """The destination's object, and whether our POST created it.

    `in_doubt`: only the clock of the answers, which may be a gateway's, says that it did not.
    """

    obj: Dict[str, Any]
    is_ours: bool
    in_doubt: bool = False


# assumption: existing_objects_are_returned, experiments_are_found
def create_object(
    catalog: Catalog, resource: Resource, body: Mapping[str, Any], post: Callable[[], Answer]
) -> Created:
    """Call `post`, which POSTs the body, and find out whether that created the object."""
    was_absent = _was_absent(catalog, resource, body)
    floor_s = 0.0 if was_absent else _date_floor_s(catalog, resource)
    is_exact = catalog.creation_clock.least_s(time.time()) is not None
    answer = post()
    received_s = time.time()
    dest_object = _shown(catalog, resource, body, answer.json)
    created_s = created_seconds(dest_object) if date_is_of_creation(resource) else 0.0
    is_since = not created_s or created_s >= floor_s
    marked = answer.headers.get(FOUND_EXISTING, "").lower() in ("true", "1")
    # The answer to a first try may have been lost: then the second one finds what the first made.
    marked_found = marked and not (answer.sent_again and created_s)
    may_be_ours = not marked_found and not contradicts(resource, body, dest_object)
    is_ours = may_be_ours and is_since
    if is_ours:
        exact_s = exact_seconds(dest_object) if created_s else 0.0
        is_now = exact_s >= catalog.dest.clock.earliest_s() - GATEWAY_SLACK_S
        if catalog.creation_clock.is_running(exact_s) or is_now:
            catalog.creation_clock.note(exact_s, received_s)
    elif not is_since:
        catalog.creation_clock.forget()
    return Created(dest_object, is_ours, in_doubt=may_be_ours and not (is_since or is_exact))


def _was_absent(catalog: Catalog, resource: Resource, body: Mapping[str, Any]) -> bool:
    """Whether a look-up by name, right before the POST, finds nothing.

    That proves the creation, whatever the clock of a gateway says. Only until the creation clock is
    known: from then on dates do. Not of experiments: a list may not show one yet, and no header
    shows that POST found it.
    """
    if resource is EXPERIMENTS or not date_is_of_creation(resource):
        return False
    is_elsewhere = resource.scope == PROJECT and "project_id" not in body
    if is_elsewhere or catalog.creation_clock.least_s(time.time()) is not None:
        return False
    by_name = replace(resource, look_up_by=MARKED_IF_FOUND.get(resource.name, ""))
    return look_up(catalog.dest, by_name, dict(body)) is None


def _shown(
    catalog: Catalog, resource: Resource, body: Mapping[str, Any], answered: Dict[str, Any]
) -> Dict[str, Any]:
    """The answered object; as a read shows it if the answer lacks what was sent.

    Of kinds whose answers always do, it needs only what identifies the object: they are read later,
    many at a time. Raises ApiError if there is no such object.
    """
    sent = [name for name in resource.create if body.get(name) and name not in resource.patch_only]
    needed = resource.key if resource.sparse_answer else sent
    if resource.below_owner or all(name in answered for name in needed):
        return answered
    path = object_path(resource, answered, str(body.get("project_id", "")))
    owner = owner_fields(resource, body)
    shown: Dict[str, Any] = catalog.dest.get(path, owner, check=object_with_id(answered["id"]))
    return shown


def _date_floor_s(catalog: Catalog, resource: Resource) -> float:
    """Returns the earliest possible date of an object created from now on.

    By the destination's clock. 0 if something other than the date proves the creation.
    """
    if not date_is_of_creation(resource):
        return 0.0
    known_s = catalog.creation_clock.least_s(time.time())
    if known_s is not None:
        return known_s
    clock = catalog.dest.clock
    if resource.name in MARKED_IF_FOUND:
        return clock.earliest_s() - GATEWAY_SLACK_S
    # The clock is known only within bounds: wait until its earliest time is later than its latest
    # time now.
    floor_s = clock.latest_s()
    catalog.dest.transport.wait(floor_s - clock.earliest_s())
    return floor_s
