"""Invites users who are not members of the destination.

Only users to whom a moved object or row refers are invited. So they are invited after everything
else was moved; then what waits for them is completed. Addresses are never logged or recorded.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, Iterator, List, Mapping, Set

from bt_migrate.api.answers import an_object
from bt_migrate.errors import NOT_THERE, ApiError
from bt_migrate.migration.context import Migration
from bt_migrate.migration.mapped_users import note_mapped_users
from bt_migrate.model.findings import finding
from bt_migrate.model.resource_table import USERS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.report.display import plural
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory, readable_runs_in
from bt_migrate.state.seen_rows import SeenRows

log = logging.getLogger("bt_migrate.migration")

MEMBERS_PATH = "/v1/organization/members"
MAX_INVITED_AT_ONCE = 100
# where the findings about invitations are kept, among those of the users
INVITATIONS = "invitations"


def missing_users(catalog: Catalog) -> Dict[str, str]:
    """Returns source id -> address in the destination, of users who are not members there."""
    return {
        user["id"]: user["email"]
        for user in catalog.lists.source_list_or_empty(USERS)
        if user.get("email") and not catalog.targets.resolve((USERS.name,), user["id"])
    }


def invite_missing_users(migration: Migration) -> None:
    """Invite the missing users to whom this run refers, if --invite-users was given."""
    settings, catalog = migration.settings, migration.catalog
    if not settings.invite_users or settings.dry_run or settings.shard:
        return
    states = migration.run.objects(USERS.name)
    try:
        # Who is a member can only be known from the list.
        catalog.lists.dest_objects(USERS)
    except ApiError as error:
        _note_not_invited(states, "users", error)
        return
    missing = missing_users(catalog)
    named = _referred_to(migration.run) - _invited_before(migration.run)
    wanted = [source_id for source_id in missing if source_id in named]
    states.note(INVITATIONS, [])
    try:
        for start in range(0, len(wanted), MAX_INVITED_AT_ONCE):
            batch = wanted[start : start + MAX_INVITED_AT_ONCE]
            _invite(migration, {source_id: missing[source_id] for source_id in batch})
    except ApiError as error:
        _note_not_invited(states, plural(len(wanted), "user"), error)
    states.save()
    invited = [source_id for source_id in wanted if migration.run.record.invited.get(source_id)]
    if invited:
        catalog.index.forget(USERS)
        note_mapped_users(catalog)
        members = len(set(invited) - missing_users(catalog).keys())
        log.info(
            "invited %s; %d already listed as members of the destination",
            plural(len(invited), "user"),
            members,
            extra={"event": "invited", "users": len(invited), "members": members},
        )


def _note_not_invited(states: ObjectStates, who: str, error: ApiError) -> None:
    if error.status == 401:
        raise error
    log.error("not invited: %s: %s", who, error)
    facts = {"resource": USERS.name, "name": who, "detail": str(error)}
    is_offered = error.status not in NOT_THERE or error.path != MEMBERS_PATH
    kind = "not_invited" if is_offered else "invitations_not_offered"
    states.note(INVITATIONS, [finding(kind, **facts)])
    states.save()


def _invite(migration: Migration, users: Mapping[str, str]) -> None:
    """Invite users. Their source ids are recorded before and after.

    Safe to send twice: a user who is already a member is not added again.
    """
    dest, run = migration.catalog.dest, migration.run
    run.record.invited.update(dict.fromkeys(users, False))
    run.save()
    invitation = {
        "emails": list(users.values()),
        "send_invite_emails": migration.settings.send_invites,
    }
    body = {"invite_users": invitation, "org_id": dest.org_id}
    answer = dest.patch(MEMBERS_PATH, body, check=_is_success)
    run.record.invited.update(dict.fromkeys(users, True))
    run.save()
    if answer.get("send_email_error"):
        log.warning("the users were invited, but the server could not send e-mails to them")


def _is_success(answer: Any) -> str:
    problem = an_object("status")(answer)
    if problem or answer["status"] == "success":
        return problem
    return "`status` is not 'success'"


def _invited_before(run: RunDirectory) -> Set[str]:
    """Returns the users whom a run has invited.

    One who is still not a member has not joined, or was removed.
    """
    runs = [run, *readable_runs_in(run.path.parent)]
    return {
        source_id
        for other in runs
        if other.same_pair(run.record)
        for source_id, is_confirmed in other.record.invited.items()
        if is_confirmed
    }


def _referred_to(run: RunDirectory) -> Set[str]:
    return {*_named_by_objects(run), *_named_by_rows(run)}


def _named_by_objects(run: RunDirectory) -> Iterator[str]:
    for states in run.all_objects():
        for findings in states.findings.values():
            for record in findings:
                if record["kind"] == "user_without_counterpart" and record.get("ref"):
                    yield record["ref"]


def _named_by_rows(run: RunDirectory) -> Iterator[str]:
    for stream in run.all_streams():
        if stream.waiting:
            yield from _waiting_users(SeenRows(stream.seen_path))


def _waiting_users(seen: SeenRows) -> List[str]:
    try:
        return [waiting.ref for waiting in seen.deferred() if waiting.targets == USERS.name]
    finally:
        seen.close()
