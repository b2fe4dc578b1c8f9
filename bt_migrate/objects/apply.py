"""Carry out the plan of one object, or foresee the result in a dry run, and record the outcome."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from bt_migrate.api.answers import object_with_id
from bt_migrate.api.request import Answer
from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.errors import AnswerError, ApiError, Route
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import (
    CREATED,
    DIFFERS,
    FAILED,
    FOUND,
    UPDATED,
    WAITING,
    WOULD_CREATE,
    WOULD_UPDATE,
)
from bt_migrate.model.references import (
    Path,
    attachment_places,
    dotted,
    value_at,
    without,
)
from bt_migrate.model.resource import OWNER, Resource
from bt_migrate.model.resource_table import PROJECTS
from bt_migrate.model.resources import kinds_listing
from bt_migrate.objects.bundles import NotOffered, bundle_file, with_bundle_id
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.create import create_object
from bt_migrate.objects.decide import (
    CREATE,
    UPDATE,
    Action,
    fingerprint,
    natural_key,
    plan_object,
    writable_fields,
)
from bt_migrate.objects.lists import planned_id
from bt_migrate.objects.paths import object_path
from bt_migrate.objects.plan import ObjectPlan, is_incomplete
from bt_migrate.objects.prepare import (
    PlannedObject,
    Prepared,
    not_placeable,
    not_readable,
    note_not_taken,
    object_finding,
)
from bt_migrate.objects.update import (
    decided,
    difference_of,
    fingerprint_of_difference,
    foreseen_update,
    note_former,
    note_left_out,
    note_no_place,
    note_update,
    remember_fingerprints,
    update_object,
)
from bt_migrate.objects.write import create_or_find, look_up, without_unknown_fields
from bt_migrate.state.object_file import ObjectOutcome

log = logging.getLogger("bt_migrate.objects")

Findings = List[Dict[str, Any]]
# How servers refuse a name that is taken.
NAME_TAKEN = re.compile(r"already exists|already taken|duplicate|deleted|not unique", re.IGNORECASE)
HELD_BY_DELETED = (
    "a deleted object may hold the name: rename the object in the source, or have the deleted one"
    " restored or removed for good"
)


@dataclass(frozen=True)
class ObjectWriter:
    """Writes the objects of one kind. Safe for many threads."""

    catalog: Catalog
    resource: Resource
    copier: Optional[AttachmentCopier]

    def apply(self, plan: ObjectPlan) -> None:
        """Carry out a plan and record it.

        An API error is the outcome of this object; any other error ends the run.
        """
        item = plan.item
        source_id = item.source["id"]
        findings = list(plan.prepared.findings)
        findings += self.catalog.histories.findings_only_earlier(source_id, findings)
        if plan.prepared.blocked:
            # Some of its versions may be there: the next start continues them.
            in_doubt = source_id in self.catalog.histories.failures
            self._record_failed(plan, findings, plan.prepared.blocked, in_doubt=in_doubt)
        else:
            try:
                action = self._carry_out(plan, findings)
            except NotOffered:
                self._record_not_offered(plan, findings)
            except ApiError as error:
                # The object may have been created all the same.
                is_unclear = error.status >= 500 or isinstance(error, AnswerError)
                facts: Dict[str, Any] = {"in_doubt": plan.action.verb == CREATE and is_unclear}
                if error.refuses_content and not error.refuses_key:  # a person may accept that
                    refused = difference_of(self.resource, item.source, plan.action.existing)
                    facts["fingerprint"] = refused
                reason = f"{error}{name_hint(error)}" if plan.action.verb == CREATE else str(error)
                self._record_failed(plan, findings, reason, **facts)
            else:
                self._record(plan, action, findings)
        item.states.note(source_id, findings)

    # -- writing

    def rename_namesake(self, item: PlannedObject, there: Mapping[str, Any]) -> None:
        """Rename the destination object that has the name, and record its former name for undo.

        The source renamed or deleted its counterpart. A renamed counterpart gets its new name when
        its own turn comes.
        """
        if self.catalog.settings.dry_run:
            return
        resource = self.resource
        other = self.catalog.ids.source_id(resource.name, there["id"]) or there["id"]
        field = resource.key[-1]
        name = f"{there[field]} (was {there['id'][:8]})"
        body = {**writable_fields(resource, there), field: name}
        renaming = Action(
            resource.name, other, name, UPDATE, dest_id=there["id"], body=body, existing=there
        )
        if note_former(resource, item.states, renaming):
            item.states.save()
        renamed = self.catalog.dest.patch(
            resource.path_of(there["id"], item.dest_project_id), {field: name}
        )
        counterpart = {**there, **renamed, field: name}
        index, project = self.catalog.index, item.dest_project_id
        for kind in kinds_listing(resource):
            if index.object(kind, project, there["id"]):
                index.put(kind, project, counterpart, renamed=True)
        before = self.catalog.earlier.fingerprints(resource, other)
        if before:
            # this tool's own change does not count as a change in the destination
            before[1] = fingerprint(resource, counterpart)
            item.states.fingerprints[other] = before
        extra = log_fields("renamed", resource, item, dest_id=there["id"])
        log.info("renamed %s %r to %r", resource.kind, there[field], name, extra=extra)

    def _carry_out(self, plan: ObjectPlan, findings: Findings) -> Action:
        action = plan.action
        if action.verb == CREATE and not self.catalog.settings.dry_run:
            with self.catalog.key_lock(self.resource, action.body):
                action = self._create(plan.item, action, findings)
        if action.verb == UPDATE:
            action = self._update(plan, action, findings)
        return action

    def _create(self, item: PlannedObject, action: Action, findings: Findings) -> Action:
        """POST the object. If that is not proven to have created it, it is compared instead."""
        catalog, resource = self.catalog, self.resource
        findings += self.copy_attachments(item, action.body)
        existing = self._now_there(item, action.body)
        if existing:
            # Somebody created it since the list was read: a write would overwrite or hide that.
            self.refuse_another(item, existing, action.body)
            planned = plan_object(resource, item.source, action.body, existing)
            return decided(catalog, resource, item.source, planned)
        if resource.part_of:
            return self._write_part(item, action, findings)
        action = replace(action, body=self._with_bundle(item, action.body))
        left_out: List[Path] = []
        created = create_object(
            catalog, resource, action.body, lambda: self._post(item, action.body, left_out)
        )
        findings += note_not_taken(catalog, resource, item, left_out)
        action = replace(action, body=without(action.body, left_out))
        dest_object = created.obj
        self.refuse_another(item, dest_object, action.body)
        if not created.is_ours:
            if not resource.names_owner:
                # Answers to a POST may be sparse (groups come without their members).
                path = object_path(resource, dest_object, item.dest_project_id)
                dest_object = catalog.dest.get(path, check=object_with_id(dest_object["id"]))
            planned = plan_object(resource, item.source, action.body, dest_object)
            found = decided(catalog, resource, item.source, planned)
            return replace(found, in_doubt=created.in_doubt)
        if resource is PROJECTS:
            catalog.lists.start_empty(dest_object["id"])
        catalog.written[item.source["id"]] = dest_object.get("_xact_id")
        return replace(action, dest_id=dest_object["id"], existing=dest_object)

    # assumption: slugs_are_versions
    def _now_there(self, item: PlannedObject, body: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        """Returns the destination's object, of a kind of which creating one may overwrite it."""
        dest, resource = self.catalog.dest, self.resource
        if not resource.part_of:
            return look_up(dest, resource, body) if resource.look_up_by else None
        holder_id = item.dest_project_id
        holder: Dict[str, Any] = dest.get(
            f"{resource.path}/{holder_id}", check=object_with_id(holder_id)
        )
        return None if resource.cannot_move(holder) else holder

    def _with_bundle(self, item: PlannedObject, body: Dict[str, Any]) -> Dict[str, Any]:
        """Upload the person's code bundle, and refer to the new bundle."""
        path = bundle_file(self.catalog.lists, self.resource, item.source)
        bundle = self.resource.bundle(body) if path else None
        if path is None or bundle is None:
            return body
        bundle_id = self.catalog.bundles.bundle_id(path, bundle.get("runtime_context") or {})
        return with_bundle_id(body, bundle_id)

    def _post(self, item: PlannedObject, body: Dict[str, Any], left_out: List[Path]) -> Answer:
        """POST the object, without the fields that an older data plane does not know.

        Their places are added to `left_out`.
        """
        catalog, resource = self.catalog, self.resource

        def send(sent: Dict[str, Any]) -> Answer:
            return create_or_find(catalog.dest, resource, sent, item.dest_project_id)

        answer, places = without_unknown_fields(resource, resource.without_patch_only(body), send)
        left_out += places
        return answer

    def _write_part(self, item: PlannedObject, action: Action, findings: Findings) -> Action:
        """Create a part by a PATCH of its holder, which replaces the whole part.

        So it is only sent to a holder without the part.
        """
        catalog, resource = self.catalog, self.resource
        part = {name: action.body[name] for name in resource.create}
        path = f"{resource.path}/{item.dest_project_id}"
        dest_object, places = without_unknown_fields(
            resource, part, lambda body: catalog.dest.patch(path, body)
        )
        findings += note_not_taken(catalog, resource, item, places)
        body = without(action.body, places)
        return replace(action, dest_id=item.dest_project_id, body=body, existing=dest_object)

    def _post_route(self) -> Route:
        return Route(self.catalog.dest.side, "POST", self.resource.path)

    def refuse_another(
        self, item: PlannedObject, dest_object: Dict[str, Any], body: Mapping[str, Any]
    ) -> None:
        """Raises ApiError if the object is a deleted one that holds the name, or the counterpart of
        another object of the source.

        The destination may ignore case or spaces, or cut names. The contents and rows of both
        objects would then be in one object.
        """
        catalog, resource = self.catalog, self.resource
        if dest_object.get("deleted_at"):
            there = f"{dest_object['id']}, which was deleted in the destination"
            raise ApiError(self._post_route(), 200, f"with {there}; {HELD_BY_DELETED}")
        key = natural_key(resource, dest_object)
        is_own = key == natural_key(resource, body if resource.key_holds_ids else item.source)
        if resource.key_holds_ids and is_own:
            # Two objects of the source can become one: users of one address, say.
            return
        source_id = item.source["id"]
        # The counterpart of another object, also one that an earlier start recorded.
        held = catalog.ids.source_id(resource.name, dest_object["id"]) not in (None, source_id)
        is_another = not is_own and (held or self._is_key(key, item))
        if is_another or not catalog.ids.claim(dest_object["id"], source_id):
            text = (
                f"with {', '.join(map(repr, key))}, which is another object of the source;"
                " rename one of the two there"
            )
            raise ApiError(self._post_route(), 200, text)

    def _is_key(self, key: Tuple[Any, ...], item: PlannedObject) -> bool:
        """Whether an object of the source, in the project of the item, has the natural key.

        False for kinds whose key holds ids: those differ in the destination.
        """
        if self.resource.key_holds_ids:
            return False
        project = item.source.get("project_id")
        return any(
            natural_key(self.resource, obj) == key
            for obj in self.catalog.lists.source_list(self.resource)
            if obj.get("project_id") == project
        )

    def _update(self, plan: ObjectPlan, action: Action, findings: Findings) -> Action:
        waiting = plan.prepared.waiting_fields
        if self.catalog.settings.dry_run:
            return foreseen_update(self.resource, action, waiting)
        action = self._judged_again(plan.item, action, waiting)
        if action.verb != UPDATE:
            return action
        findings += self.copy_attachments(plan.item, action.body)
        # Not recorded before if POST found the object a moment ago.
        if note_update(self.resource, plan.item.states, action):
            plan.item.states.save()
        action, places = update_object(self.catalog.dest, self.resource, action, waiting)
        not_taken = note_not_taken(self.catalog, self.resource, plan.item, places)
        findings += [record for record in not_taken if record not in findings]
        return action

    def _judged_again(self, item: PlannedObject, action: Action, waiting: Set[str]) -> Action:
        """The action for the object as it is now: somebody may have changed it since it was listed,
        and an update would overwrite that.
        """
        resource = self.resource
        if resource.names_owner or resource.below_owner:
            # A GET of one object is not as its list shows it, or needs its owner.
            return action
        path = resource.path_of(str(action.dest_id), item.dest_project_id)
        now = self.catalog.dest.get(path, check=object_with_id(str(action.dest_id)))
        if fingerprint(resource, now) == fingerprint(resource, action.existing):
            return action
        planned = plan_object(resource, item.source, action.body, now, waiting)
        return decided(self.catalog, resource, item.source, planned)

    def copy_attachments(self, item: PlannedObject, body: Dict[str, Any]) -> Findings:
        """Copy the attachments of the object.

        A reference whose bytes could not be copied keeps the source's key.
        """
        if not self.copier:
            return []
        originals = writable_fields(self.resource, item.source)
        findings = []
        for path in attachment_places(body):
            original = value_at(originals, path)
            if not isinstance(original, dict):
                continue
            for key, why in self.copier.copy_into({"reference": dict(original)}).items():
                value_at(body, path)["key"] = key
                facts = {"path": dotted(path), "ref": key, "detail": str(why)}
                findings.append(object_finding(self.resource, item, why.kind, **facts))
        return findings

    # -- recording

    def _record_failed(
        self, plan: ObjectPlan, findings: Findings, reason: str, **facts: Any
    ) -> None:
        item, action = plan.item, plan.action
        failed = ObjectOutcome(
            action.name,
            FAILED,
            dest_id=action.dest_id or "",
            reason=reason,
            fields=list(action.fields) if plan.prepared.blocked else [],
            **facts,
        )
        item.states.record(action.source_id, failed)
        findings.append(object_finding(self.resource, item, "not_created", detail=reason))
        facts = log_fields("failed", self.resource, item, reason=reason)
        log.error("failed %s %r: %s", self.resource.kind, action.name, reason, extra=facts)

    def _record_not_offered(self, plan: ObjectPlan, findings: Findings) -> None:
        """Record an object whose bundle cannot be uploaded: a person has to create it."""
        item, resource = plan.item, self.resource
        failed = ObjectOutcome(plan.action.name, FAILED, reason="its bundle cannot be uploaded")
        item.states.record(plan.action.source_id, failed)
        findings[:] = [
            not_readable(resource, item, resource.cannot_move(item.source)),
            object_finding(resource, item, "bundles_not_offered"),
        ]

    def _record(self, plan: ObjectPlan, action: Action, findings: Findings) -> None:
        item, resource, source_id = plan.item, self.resource, action.source_id
        outcome = self._outcome(item, plan.prepared, action)
        dest_id = action.dest_id or (planned_id(source_id) if outcome == WOULD_CREATE else "")
        ours = outcome in (CREATED, UPDATED)
        had_no_place = item.states.has_no_place(source_id)
        is_explained = not ours or action.verb == UPDATE
        entry = ObjectOutcome(
            action.name,
            outcome,
            dest_id=dest_id,
            owner=_owner(resource, action) if dest_id else [],
            versions=self.catalog.histories.written.get(source_id, 0),
            reason=action.reason if is_explained else "",
            fields=list(action.fields) if is_explained else [],
            in_doubt=action.in_doubt,
            fingerprint=fingerprint_of_difference(resource, item.source, action, outcome),
        )
        item.states.record(source_id, entry)
        is_left_alone = outcome in (DIFFERS, WAITING)
        remember_fingerprints(self.catalog, resource, item, action, is_left_alone=is_left_alone)
        if dest_id:
            self._remember(item, action, dest_id, is_left_alone=is_left_alone)
            unwritten = outcome == CREATED and any(map(action.body.get, resource.patch_only))
            lacks = plan.prepared.deferred or unwritten or (ours and action.verb == DIFFERS)
            if lacks and outcome != WAITING:
                item.states.deferred[source_id] = dest_id  # the second pass completes it
            left_before = self.catalog.earlier.left_out(resource.name, source_id)
            if ours or outcome == WOULD_CREATE or (outcome == FOUND and left_before):
                note_left_out(self.catalog, resource, item, plan.prepared)
            elif had_no_place:
                item.states.left_out.pop(source_id, None)  # somebody else created it
        elif not_placeable(resource, item.source, plan.prepared.body):
            note_no_place(self.catalog, resource, item, plan.prepared)
        if _value_is_to_enter(resource, item.source, action, outcome):
            facts = {"path": resource.hidden_field, "next": resource.next_action}
            findings.append(object_finding(resource, item, "secret_to_enter", **facts))
        because = f" ({action.reason})" if action.reason else ""
        extra = log_fields(outcome, resource, item, dest_id=dest_id, reason=action.reason)
        log.info("%s %s %r%s", outcome, resource.kind, action.name, because, extra=extra)

    def _remember(
        self, item: PlannedObject, action: Action, dest_id: str, *, is_left_alone: bool
    ) -> None:
        """Add the destination's object to the catalog.

        `is_left_alone`: its content was not changed.
        """
        key = _key_fields(self.resource, item.source, action.body)
        content = {**key, **action.existing} if is_left_alone else {**action.body, **key}
        counterpart = {**content, "id": dest_id}
        self.catalog.remember(
            self.resource,
            action.source_id,
            counterpart,
            item.dest_project_id,
            renamed=not is_left_alone,
        )

    def _outcome(self, item: PlannedObject, prepared: Prepared, action: Action) -> str:
        """What became of the object.

        What a process that died created, and what an earlier run left incomplete, is ours.
        """
        dry_run = self.catalog.settings.dry_run
        if action.verb == CREATE:
            return WOULD_CREATE if dry_run else CREATED
        if action.verb == UPDATE:
            return WOULD_UPDATE if dry_run else UPDATED
        if action.verb in (FOUND, DIFFERS) and prepared.made_before:
            return CREATED
        if action.verb == DIFFERS and is_incomplete(self.catalog, self.resource, item, action):
            return UPDATED
        if item.source["id"] in self.catalog.histories.continued:
            return UPDATED
        return action.verb


def _value_is_to_enter(
    resource: Resource, source: JsonObject, action: Action, outcome: str
) -> bool:
    """Whether a person has to enter the value of a field that cannot be read.

    That is so for a found object too, until it has a value. If the destination's object lacks the
    field that shows it, the source's object shows whether servers show it.
    """
    shown = resource.hidden_field_shown_by
    was_created = outcome in (CREATED, WOULD_CREATE)
    is_shown = shown in action.existing or bool(source.get(shown))
    lacks = bool(shown) and is_shown and not action.existing.get(shown)
    return bool(resource.hidden_field) and (was_created or lacks)


def log_fields(
    event: str, resource: Resource, item: PlannedObject, **facts: Optional[str]
) -> Dict[str, Any]:
    """Fields of a JSON log line."""
    fields = {
        "event": event,
        "resource": resource.name,
        "source_id": item.source["id"],
        "project": item.states.project,
        **facts,
    }
    return {name: value for name, value in fields.items() if value}


def name_hint(error: ApiError) -> str:
    """Returns a possible reason why a name is refused that no list shows."""
    says_taken = bool(NAME_TAKEN.search(error.body)) and error.status in (400, 409, 422)
    return f"; {HELD_BY_DELETED}" if says_taken else ""


def _owner(resource: Resource, action: Action) -> List[str]:
    if resource.scope != OWNER:
        return []
    return [action.body["object_type"], action.body["object_id"]]


def _key_fields(resource: Resource, source: JsonObject, body: Dict[str, Any]) -> Dict[str, Any]:
    origin = body if resource.key_holds_ids else source
    return {name: origin.get(name) for name in resource.key}
