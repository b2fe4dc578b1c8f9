"""The content of versions as it can be recognized on the other side, and which version is which.

An id or a version of another object differs between the organizations, and may not be known yet, so
it counts as equal to any other. Pure but for looking up references.
"""

from __future__ import annotations

import json
from difflib import SequenceMatcher
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from bt_migrate.model.equality import digest
from bt_migrate.model.references import UUID, attachment_places, paths_matching, rewrite, set_at
from bt_migrate.model.resource import Resource
from bt_migrate.objects.decide import comparable, writable_fields
from bt_migrate.objects.targets import Targets
from bt_migrate.state.object_states import ObjectStates

ANY_ID = "00000000-0000-0000-0000-000000000000"


def source_digest(targets: Targets, resource: Resource, version: Mapping[str, Any]) -> str:
    """The digest of a version of the source as it should become in the destination.

    A reference that cannot be resolved, now or later, is left out there.
    """

    def resolve(to: Tuple[str, ...], source_id: str) -> Optional[str]:
        is_resolvable = targets.resolve(to, source_id) or targets.may_resolve_later(to, source_id)
        return ANY_ID if is_resolvable else None

    fields = writable_fields(resource, version)
    rewritten = rewrite(fields, resource, resolve=resolve, known_ids=targets.known_ids())
    return _digest(resource, rewritten.value)


def dest_digest(resource: Resource, version: Mapping[str, Any]) -> str:
    """The digest of a version in the destination."""
    fields = writable_fields(resource, version)
    return _digest(resource, rewrite(fields, resource, resolve=_as_it_is, known_ids={}).value)


def _as_it_is(to: Tuple[str, ...], dest_id: str) -> Optional[str]:
    return dest_id


def _digest(resource: Resource, fields: Dict[str, Any]) -> str:
    # All versions are written under the latest name of the object.
    held = {name: value for name, value in fields.items() if value and name not in resource.key}
    for path in attachment_places(held):
        set_at(held, (*path, "key"), ANY_ID)
    for pattern in resource.project_names:
        for path in paths_matching(held, pattern):
            set_at(held, path, ANY_ID)
    masked: Dict[str, Any] = json.loads(UUID.sub(ANY_ID, json.dumps(comparable(held))))
    return digest(masked).hex()


def aligned(
    source: Sequence[str], dest: Sequence[str], *, newest_first: bool = False
) -> Dict[int, int]:
    """Returns position in `source` -> position in `dest` of equal versions.

    Both are digests, oldest first. The order is kept; versions that only one side has are left out.
    If equal content was written more than once, the oldest is taken, or the newest.
    """
    if newest_first:
        last = (len(source) - 1, len(dest) - 1)
        from_end = aligned(source[::-1], dest[::-1])
        return {
            last[0] - place: last[1] - from_end[place] for place in sorted(from_end, reverse=True)
        }
    blocks = SequenceMatcher(None, source, dest, autojunk=False).get_matching_blocks()
    return {block.a + n: block.b + n for block in blocks for n in range(block.size)}


def holds_begun_version(
    resource: Resource, states: ObjectStates, source_id: str, existing: Mapping[str, Any]
) -> bool:
    """Whether the destination's object is as this run left it while it wrote its versions."""
    begun = states.begun_versions.get(source_id, ())
    return bool(begun) and dest_digest(resource, existing) in begun
