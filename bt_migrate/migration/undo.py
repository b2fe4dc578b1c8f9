"""Take back what a run did: the objects that it created and the rows that it brought to objects which were there before go, what it
updated becomes what it was.

What was changed since is left unless asked for, what the run only found is never touched. Everything that is needed was written
down by the run: the source is not asked.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterable, Iterator, List, Sequence, Set, Tuple

from bt_migrate.api.btql import OBJECTS_PER_QUERY, Bounds, newest_query
from bt_migrate.api.client import Api
from bt_migrate.api.transactions import xact_of, xact_seconds
from bt_migrate.config.settings import Settings
from bt_migrate.errors import ApiError, UsageError
from bt_migrate.model.outcomes import CREATED, FAILED, UPDATED
from bt_migrate.model.resource import OWNER, Resource, never
from bt_migrate.model.resource_table import (
    OBJECT_RESOURCES,
    PROJECTS,
)
from bt_migrate.model.resources import BY_NAME, ROW_KINDS, holder_of_rows
from bt_migrate.objects.decide import (
    DIFFERS,
    UPDATE,
    Action,
    differing,
    display_name,
    fingerprint,
    natural_key,
)
from bt_migrate.objects.update import foreseen_update, update_object
from bt_migrate.rows.insert import delete_rows
from bt_migrate.rows.read import pages
from bt_migrate.state.files import now
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory, end_killed_session
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.state.stream_state import StreamState
from bt_migrate.state.window_log import record_undone

# What reacts to rows goes before rows are deleted; then the rest, what refers before what is referred to, projects last.
FIRST = tuple(
    resource
    for resource in reversed(OBJECT_RESOURCES)
    if resource.scope == OWNER or resource.part_of or resource.reacts_to_data is not never
)
THEN = tuple(one for one in reversed(OBJECT_RESOURCES) if one not in FIRST)
CLOCK_SLACK_S = 2  # the server tells its time in whole seconds
CHANGED = "changed since the run"
NOT_EMPTY = "holds something that this run did not make, or that is left"


@dataclass(frozen=True)
class CreatedObject:
    """An object that the run made. `left_as` is the fingerprint that it had then; `reason` says why it is to be left, "" if not."""

    resource: Resource
    project: str
    name: str
    dest_id: str
    left_as: str
    owner: Tuple[str, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        return _shown(self.resource, self.project, self.name, self.dest_id)


@dataclass(frozen=True)
class Updated:
    """An object that the run updated. `content`: what it was; `existing`: what it is; `fields`: those that are not as they were."""

    resource: Resource
    project: str
    name: str
    content: Dict[str, Any]
    existing: Dict[str, Any]
    fields: Sequence[str]

    def __str__(self) -> str:
        return _shown(self.resource, self.project, self.name, self.existing["id"])


def _shown(resource: Resource, project: str, name: str, dest_id: str) -> str:
    return f"{resource.name} {name!r}{f' of {project!r}' if project else ''} [{dest_id}]"


def reason_to_leave(resource: Resource, left_as: str, existing: Dict[str, Any]) -> str:
    """Why an object is not what the run left, "" if it is."""
    if existing.get(resource.hidden_field_shown_by):
        return "its value was typed in since the run"
    return "" if fingerprint(resource, existing) == left_as else CHANGED


class Undo:
    """The undoing of one run. `restores`: the objects that will be as they were; `deletes`: those that will go; `left`: lines about
    what stays.
    """

    def __init__(self, dest: Api, run: RunDirectory, settings: Settings) -> None:
        if run.data["dest"]["org_id"] != dest.org_id:
            raise UsageError(
                f"{run.path}: was made for the destination {run.data['dest']['org_name']}; use the key of that one"
            )
        self.dest, self.run, self.settings = dest, run, settings
        self.first = "undone" not in run.data  # else some of what the run made is gone already
        end_killed_session(run, dest.clock.earliest_s() - time.time())
        self.written_until = (
            max((one.get("wrote_until", 0.0) for one in run.data["sessions"]), default=0.0)
            + CLOCK_SLACK_S
        )
        self.left: List[str] = []
        self._lists: Dict[str, List[dict]] = {}
        self._there: Dict[
            str, Dict[str, dict]
        ] = {}  # resource -> id -> the destination's object as it is now
        self.restores = [one for states in run.all_objects() for one in self._updated(states)]
        made = list(self._made())
        self.ids = {
            (one.resource.name, one.dest_id) for one in made
        }  # what the run made, also if it is gone by now
        self.deletes = self._decide(
            [one for one in made if one.dest_id in self._there[one.resource.name]]
        )

    # -- what was made

    def _made(self) -> Iterator[CreatedObject]:
        for states in self.run.all_objects():
            resource = BY_NAME[states.resource]
            known = states.known()
            for source_id, entry in known.items():
                if entry["outcome"] == UPDATED and source_id not in states.former:
                    self.left.append(
                        f"{resource.name} {entry['name']!r} [{entry['dest_id']}]: updated; what it was is not known"
                    )
            entries = [(one, entry) for one, entry in known.items() if entry["outcome"] == CREATED]
            if not entries and not states.intended:
                continue
            owners = {tuple(entry["owner"]) for _, entry in entries if "owner" in entry}
            owners |= {
                tuple(intent["key"][:2])
                for intent in states.intended.values()
                if resource.scope == OWNER
            }
            there = self._list(resource, owners)
            for source_id, entry in entries:
                left_as = states.fingerprints.get(source_id, ["", ""])[1]
                yield CreatedObject(
                    resource,
                    states.project,
                    entry["name"],
                    entry["dest_id"],
                    left_as,
                    tuple(entry.get("owner", ())),
                )
            for source_id, intent in states.intended.items():
                # the process died, or the server failed, before it could be said whether it was made
                if known.get(source_id, {"outcome": FAILED})["outcome"] == FAILED:
                    yield from _intended(resource, states.project, intent, there)

    def _list(self, resource: Resource, owners: Iterable[Tuple[str, ...]] = ()) -> List[dict]:
        """The objects of a kind in the destination now; of views and ACLs, those of the owners."""
        found = self._all(resource, owners)
        if resource.part_of:
            found = [one for one in found if not resource.cannot_move(one)]
        self._there.setdefault(resource.name, {}).update((one["id"], one) for one in found)
        return found

    def _all(self, resource: Resource, owners: Iterable[Tuple[str, ...]]) -> List[dict]:
        if resource.scope == OWNER:
            return [one for owner in owners for one in self._of_owner(resource, owner)]
        return self._of_kind(resource)

    def _of_kind(self, resource: Resource) -> List[dict]:
        if resource.path not in self._lists:
            found = self.dest.list(
                resource.path, page_size=self.settings.batch_size if resource.paged else 0
            )
            self._lists[resource.path] = [one for one in found if not one.get("deleted_at")]
        return self._lists[resource.path]

    def _of_owner(self, resource: Resource, owner: Tuple[str, ...]) -> List[dict]:
        """Nothing where the owner is gone."""
        params = {"object_type": owner[0], "object_id": owner[1]}
        try:
            return [
                one
                for one in self.dest.list(resource.path, params, page_size=1000)
                if not one.get("deleted_at")
            ]
        except ApiError as error:
            if error.status >= 500:
                raise
            return []

    # -- what was updated

    def _updated(self, states: ObjectStates) -> Iterator[Updated]:
        """What is there and is not as it was; noted as left where it is not as the run left it either."""
        resource = BY_NAME[states.resource]
        owners = {
            (one["content"].get("object_type"), one["content"].get("object_id"))
            for one in states.former.values()
        }
        there = {one["id"]: one for one in self._all(resource, owners)} if states.former else {}
        for source_id, former in states.former.items():
            existing = there.get(former["id"])
            fields = differing(resource, former["content"], existing) if existing else ()
            if not existing or not fields:
                continue
            one = Updated(
                resource, states.project, former["name"], former["content"], existing, fields
            )
            left_as = {former["fingerprint"], *states.fingerprints.get(source_id, [])[1:]}
            if fingerprint(resource, existing) in left_as or self.settings.changed:
                yield one
            else:
                self.left.append(f"{one}: {CHANGED}")

    def restore(self, one: Updated) -> bool:
        """Make an object what it was, or foresee that; whether it is that then. What is not is left, with the reason."""
        self.dest.check()
        action = Action(
            one.resource.name,
            "",
            one.name,
            UPDATE,
            dest_id=one.existing["id"],
            body=one.content,
            existing=one.existing,
        )
        try:
            done = (
                update_object(self.dest, one.resource, action)
                if self.settings.yes
                else foreseen_update(one.resource, action)
            )
            told = (
                f"the API cannot take away what these fields hold beyond: {', '.join(done.fields)}"
                if done.verb == DIFFERS
                else ""
            )
        except ApiError as error:
            told = str(error)
        self.left += [f"{one}: {told}"] if told else []
        return not told

    # -- what goes and what stays

    def _decide(self, made: Sequence[CreatedObject]) -> List[CreatedObject]:
        """Those that are deleted, in order; the others are noted as left."""
        rewritten = self._with_newer_rows(made)
        decided = [self._judged(one, rewritten) for one in made]
        settings = {
            one.dest_id: one.reason for one in decided if one.resource.part_of and one.reason
        }
        projects = {one.dest_id for one in decided if one.resource is PROJECTS}
        decided = [
            one for one in decided if not (one.resource.part_of and one.dest_id in projects)
        ]  # go with it
        staying = {one.dest_id for one in decided if one.reason}
        full = self._not_empty(projects, {one for _, one in self.ids} - staying)
        result = []
        for one in decided:
            if one.resource is PROJECTS:
                reason = (
                    one.reason
                    or settings.get(one.dest_id, "")
                    or (NOT_EMPTY if one.dest_id in full else "")
                )
                one = replace(one, reason=reason)
            if one.reason:
                self.left.append(f"{one}: {one.reason}")
            else:
                result.append(one)
        return sorted(result, key=lambda one: (*FIRST, *THEN).index(one.resource))

    def _judged(self, one: CreatedObject, rewritten: Set[str]) -> CreatedObject:
        reason = reason_to_leave(
            one.resource, one.left_as, self._there[one.resource.name][one.dest_id]
        )
        if not reason and one.dest_id in rewritten and not one.resource.part_of:
            reason = f"rows in it were {CHANGED}"
        return replace(one, reason="" if self.settings.changed else reason)

    def _with_newer_rows(self, made: Sequence[CreatedObject]) -> Set[str]:
        """Ids of objects with a row that was written after the run."""
        newest: Dict[str, int] = {}
        for kind in ROW_KINDS:
            ids = [one.dest_id for one in made if one.resource is _holder(kind)]
            for start in range(0, len(ids), OBJECTS_PER_QUERY):
                newest.update(self._newest(kind, ids[start : start + OBJECTS_PER_QUERY]))
        return {one for one, xact in newest.items() if xact_seconds(xact) > self.written_until}

    def _newest(self, kind: str, ids: Sequence[str]) -> Dict[str, int]:
        """Object id -> transaction of its last row. Objects of which a query over several says nothing are asked for alone."""
        id_field = ROW_KINDS[kind].id_field
        rows = self.dest.query(newest_query(kind, id_field, ids)).json
        found = {row.get(id_field): xact_of(row.get("newest")) for row in rows}
        for one in ids if len(ids) > 1 else ():
            if one not in found:
                found.update(self._newest(kind, [one]))
        return found

    def _not_empty(self, projects: Set[str], going: Set[str]) -> Set[str]:
        """Those of the projects that hold an object which is not `going`. Playgrounds cannot be seen."""
        found = set()
        for resource in OBJECT_RESOURCES if projects else ():
            if resource.scope == "project":
                try:
                    others = [one for one in self._of_kind(resource) if one["id"] not in going]
                    found |= {
                        one.get("project_id") for one in others if not resource.servers_own(one)
                    }
                except ApiError as error:  # a kind that this server does not have
                    if error.status >= 500 or not resource.beyond:
                        raise
        owned = [one for one in OBJECT_RESOURCES if one.scope == OWNER and not one.grants_access]
        for resource in owned:
            for project in projects - found:
                objects = self._of_owner(resource, ("project", project))
                if any(one["id"] not in going for one in objects):
                    found.add(project)
        return projects & found

    # -- rows

    def streams(self) -> Iterator[StreamState]:
        """The streams of objects that were there before the run."""
        for kind in ROW_KINDS:
            holder = _holder(kind)
            streams = [one for one in self.run.all_streams() if one.header["kind"] == kind]
            there = {one["id"] for one in self._of_kind(holder)} if streams else set()
            for stream in streams:
                dest_id = stream.header["dest_id"]
                if dest_id in there and (holder.name, dest_id) not in self.ids:
                    yield stream

    def own_rows(self, stream: StreamState) -> Iterator[Tuple[List[str], int]]:
        """(ids of rows that the run brought, number of those that are left because they were changed since), page by page."""
        kind, dest_id = stream.header["kind"], stream.header["dest_id"]
        path = stream.sibling("_seen.sqlite3")
        if not path.exists():
            return
        seen = SeenRows(path)
        try:
            limit = self.settings.rows(kind).fetch_limit
            for page in pages(
                self.dest, kind, [dest_id], Bounds(after_key=stream.copy.before_key), limit=limit
            ):
                self.dest.check()
                ours = set(
                    seen.inserted(stream.header["source_id"], [row["id"] for row in page.rows])
                )
                rows = [row for row in page.rows if row["id"] in ours]
                changed = (
                    [] if self.settings.changed else [row for row in rows if self._is_after(row)]
                )
                kept = {row["id"] for row in changed}
                yield [row["id"] for row in rows if row["id"] not in kept], len(changed)
        finally:
            seen.close()

    def _is_after(self, row: Dict[str, Any]) -> bool:
        return xact_seconds(xact_of(row.get("_xact_id"))) > self.written_until

    def delete_rows(self, stream: StreamState, ids: Sequence[str]) -> None:
        kind = ROW_KINDS[stream.header["kind"]]
        for start in range(0, len(ids), self.settings.insert_batch_size):
            delete_rows(
                self.dest,
                kind,
                stream.header["dest_id"],
                ids[start : start + self.settings.insert_batch_size],
            )

    # -- objects

    def delete_objects(self, resource: Resource) -> int:
        """Delete those of a kind; how many. What could not be deleted and is still there is left, with what the API said."""
        ours = [one for one in self.deletes if one.resource is resource][
            ::-1
        ]  # the last made first
        if (
            resource is PROJECTS
        ):  # looked at again: something may not have gone, or have come meanwhile
            self._lists.clear()
            full = self._not_empty({one.dest_id for one in ours}, set())
            self.left += [f"{one}: {NOT_EMPTY}" for one in ours if one.dest_id in full]
            ours = [one for one in ours if one.dest_id not in full]
        with ThreadPoolExecutor(self.settings.max_concurrent, thread_name_prefix="undo") as pool:
            errors = {one: error for one, error in zip(ours, pool.map(self._delete, ours)) if error}
        if errors:
            self._lists.pop(resource.path, None)
            self._there[resource.name] = {}
            self._list(resource, {one.owner for one in errors if one.owner})
        left = [one for one in errors if one.dest_id in self._there[resource.name]]
        self.left += [f"{one}: {errors[one]}" for one in left]
        return len(ours) - len(left)

    def _delete(self, one: CreatedObject) -> str:
        """What the API said against it, "" for nothing."""
        self.dest.check()
        path = f"{one.resource.path}/{one.dest_id}"
        try:
            if (
                one.resource.part_of
            ):  # a part of a project that had none; PATCH replaces all of them
                empty: Dict[str, Any] = {name: {} for name in one.resource.create}
                if not one.resource.cannot_move(self.dest.patch(path, empty)):
                    return "the settings stay whatever is sent"
            elif one.resource.names_owner:
                self.dest.delete(path, dict(zip(("object_type", "object_id"), one.owner)))
            else:
                self.dest.delete(path)
        except ApiError as error:
            return str(error)
        return ""


def _holder(kind: str) -> Resource:
    """What holds the rows of a kind."""
    return holder_of_rows(kind)


def _intended(
    resource: Resource, project: str, intent: Dict[str, Any], there: Sequence[dict]
) -> Iterator[CreatedObject]:
    """The object that was about to be made, if it is there."""
    key = tuple(intent["key"])
    for one in there:
        inside = resource.scope != "project" or one.get("project_id") == intent["project"]
        if inside and natural_key(resource, one) == key:
            owner = key[:2] if resource.scope == OWNER else ()
            yield CreatedObject(
                resource,
                project,
                display_name(resource, one),
                one["id"],
                intent["fingerprint"],
                owner,
            )


def undo(dest: Api, run: RunDirectory, settings: Settings) -> int:
    """Print what would be deleted and what would be left, or with `settings.yes` do it; how many things are left."""
    plan = Undo(dest, run, settings)
    if settings.yes:
        run.data.update(
            undone={"started": now()}, finished=True, waiting=False
        )  # from here on nobody resumes it
        run.save()
        record_undone(run.path.parent, run.path.name)
    deleted = {"objects": 0, "rows": 0}
    restored = _undo_updates(plan)
    for resource in FIRST:
        deleted["objects"] += _undo_kind(plan, resource)
    for stream in plan.streams():
        deleted["rows"] += _undo_rows(plan, stream)
    for resource in THEN:
        deleted["objects"] += _undo_kind(plan, resource)
    for line in plan.left:
        print(f"left: {line}")
    told = f"{deleted['objects']:,} objects and {deleted['rows']:,} rows"
    if settings.yes:
        run.data["undone"].update(ended=now(), **deleted, restored=restored, left=len(plan.left))
        run.save()
        print(f"Deleted {told}, restored {restored:,} objects; {len(plan.left):,} left.")
    else:
        print(
            f"Would delete {told}, restore {restored:,} objects and leave {len(plan.left):,}; nothing was done: add --yes."
        )
    return len(plan.left)


def _undo_updates(plan: Undo) -> int:
    """Before anything is deleted: what was updated may refer to what goes."""
    for one in plan.restores:
        print(f"restore: {one} ({', '.join(one.fields)})")
    return sum([plan.restore(one) for one in plan.restores])


def _undo_kind(plan: Undo, resource: Resource) -> int:
    ours = [one for one in plan.deletes if one.resource is resource]
    for one in ours:
        print(f"delete: {one}")
    return plan.delete_objects(resource) if plan.settings.yes else len(ours)


def _undo_rows(plan: Undo, stream: StreamState) -> int:
    count = changed = 0
    where = (
        f"rows of {stream.header['kind']} {stream.header['name']!r} of {stream.header['project']!r}"
    )
    try:
        for ids, left in plan.own_rows(stream):
            if plan.settings.yes and ids:
                plan.delete_rows(stream, ids)
            count, changed = count + len(ids), changed + left
        if plan.settings.yes and count:  # an answer of 200 proves nothing
            still = sum(len(ids) for ids, _ in plan.own_rows(stream))
            plan.left += (
                [f"{still:,} {where}: still shown; run the same command again"] if still else []
            )
    except ApiError as error:
        plan.left.append(f"{where}: {error}")
    if count:
        print(f"delete: {count:,} {where}")
    hidden = stream.counts[CREATED] - count - changed if plan.first else 0
    if hidden > 0:
        plan.left.append(
            f"{hidden:,} {where}: not shown, maybe not yet; run the same command again"
        )
    if stream.copy.overwritten:
        plan.left.append(
            f"up to {stream.copy.overwritten:,} {where}: were there and were written to; what they were is not known"
        )
    if changed:
        plan.left.append(f"{changed:,} {where}: {CHANGED}")
    return count
