"""Users who are matched by --user-map. A run remembers them by ids, so that no later start in its
folder needs the file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import List, Mapping, Tuple

from bt_migrate.errors import ApiError, UsageError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource_table import USERS
from bt_migrate.objects.catalog import Catalog, open_catalog
from bt_migrate.objects.user_map import (
    contradiction,
    mapped_ids,
    refuse_strangers,
    remembered_map,
)
from bt_migrate.state.run_directory import RunDirectory, readable_runs_in

NOT_LISTED = (
    "--user-map: the {side} does not list its users to this key; use one that may list them"
)


def with_mapped_users(catalog: Catalog, *, can_invite: bool) -> Catalog:
    """Returns the catalog with users matched by --user-map, or without it as the run remembers.

    Raises UsageError if the file names users whom one of the organizations does not have, where
    that cannot be known, and if it contradicts the run. A program that cannot invite
    (`can_invite`) reports users who are missing in the destination instead.
    """
    settings, run = catalog.settings, catalog.run
    if settings.user_map:
        source, dest = _users(catalog)
        if can_invite and not settings.invite_users:
            refuse_strangers(settings.user_map, dest)
        differs = contradiction(settings.user_map, run.record.user_map, source, dest)
        if differs:
            raise UsageError(
                f"--user-map, {differs}: {run.path} was made with another map; leave the option"
                " out, give the same file, or use another --state-dir"
            )
    else:
        ids = _remembered(run)
        if not ids:
            return catalog
        user_map = remembered_map(ids, *_users(catalog))
        settings = replace(settings, user_map=user_map)
        catalog = open_catalog(catalog.source, catalog.dest, run, settings)
        run.record.user_map = dict(ids)
    if run.moves:
        note_mapped_users(catalog)
    return catalog


def note_mapped_users(catalog: Catalog) -> None:
    """Remember the users as they are mapped now. One who left the destination is not forgotten."""
    record = catalog.run.record
    user_map = mapped_ids(*_users(catalog))
    remembered = {
        user: dest_id for user, dest_id in record.user_map.items() if not user_map.get(user)
    }
    record.user_map = {**user_map, **remembered}
    catalog.run.save()


def _users(catalog: Catalog) -> Tuple[List[JsonObject], List[JsonObject]]:
    """Returns the users of both organizations. Raises UsageError if a list is refused."""
    source = catalog.lists.source_list(USERS)
    if USERS.name in catalog.lists.refusals:
        raise UsageError(NOT_LISTED.format(side="source"))
    try:
        return source, catalog.lists.dest_objects(USERS)
    except ApiError as error:
        if error.status >= 500:
            raise
        raise UsageError(NOT_LISTED.format(side="destination")) from None


def _remembered(run: RunDirectory) -> Mapping[str, str]:
    """Returns the map of the run, or of the newest run before it for the same organizations."""
    if run.record.user_map:
        return run.record.user_map
    organizations = (run.record.source.org_id, run.record.dest.org_id)
    for other in readable_runs_in(run.path.parent):
        record = other.record
        is_same = (record.source.org_id, record.dest.org_id) == organizations
        if is_same and record.user_map and not (record.dry_run or record.undone):
            return record.user_map
    return {}
