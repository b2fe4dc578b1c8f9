"""Copy the objects of one kind: list the source -> rewrite -> plan -> apply -> record.

One function for all kinds; the table of resources says how they differ. Objects that need each
other are created in the order of their references. A reference whose target does not exist yet is
left out at first, and added by the second pass.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import (
    Any,
    Callable,
    ContextManager,
    Deque,
    Dict,
    Iterable,
    List,
    Optional,
    Sequence,
    Set,
)

from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.config.values import KEEP_POLICY
from bt_migrate.errors import ApiError
from bt_migrate.model.activation import deletes_rows, missing_words
from bt_migrate.model.outcomes import CREATED, DIFFERS, FAILED, NOT_KNOWN_THERE, SKIPPED, WAITING
from bt_migrate.model.portions import portions
from bt_migrate.model.resource import OWNER, PROJECT, Resource
from bt_migrate.model.resource_table import BUILT_IN
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.apply import ObjectWriter, log_fields
from bt_migrate.objects.bundles import bundle_file
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import (
    CREATE,
    UPDATE,
    dependencies,
    dependency_levels,
    display_name,
    fingerprint,
    natural_key,
)
from bt_migrate.objects.plan import (
    ObjectPlan,
    can_be_made_by_hand,
    counterpart_id,
    dest_key,
    plan_item,
)
from bt_migrate.objects.prepare import (
    NO_STATE,
    PlannedObject,
    not_readable,
    object_finding,
    skip_reason,
)
from bt_migrate.objects.update import fingerprints_of, note_update, policy_of, record_fingerprints
from bt_migrate.report.actions import count_and_noun
from bt_migrate.state.object_file import Intention, ObjectOutcome
from bt_migrate.state.object_states import ObjectStates, save_objects

log = logging.getLogger("bt_migrate.objects")

OnCreated = Callable[[PlannedObject], None]
# Each batch rewrites the files of its objects' outcomes. With batches of one size, that work
# would grow with the square of the number of objects.
MAX_BATCHES = 20


def copy_objects(
    catalog: Catalog,
    resource: Resource,
    items: Sequence[PlannedObject],
    *,
    copier: Optional[AttachmentCopier] = None,
    on_created: Optional[OnCreated] = None,
) -> None:
    """Give every object an outcome. Objects that an earlier process completed are skipped.

    `on_created` is called with each object that has its outcome, which is about to be saved. The
    intention to create it is on disk by then.
    """
    if resource.scope == PROJECT:
        catalog.lists.prefetch((), [resource], {item.dest_project_id for item in items})
    decidable = _decidable(catalog, resource, items)
    todo = [item for item in decidable if _is_to_do(catalog, resource, item)]
    by_id = {item.source["id"]: item for item in todo}
    among = set(by_id)
    deleting = [item.source for item in todo if deletes_rows(resource.acts(item.source))]
    others = [item.source for item in todo if item.source not in deleting]
    levels = [
        level
        for objects in (others, deleting)  # objects that delete rows come last
        for level in dependency_levels(
            objects, lambda obj: _needs(catalog, resource, by_id[obj["id"]], among)
        )
    ]
    # A position cannot be set: objects that have one are created one after the other.
    workers = 1 if "position" in resource.server else catalog.settings.max_concurrent
    writer = ObjectWriter(catalog, resource, copier)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="objects")
    with pool, _shown_progress(catalog, resource, len(todo)):
        for level in levels:
            level_items = [by_id[obj["id"]] for obj in level]
            _LevelCopy(writer, pool, on_created or _ignore).run(level_items)
    if resource.sparse_answer and not catalog.settings.dry_run:
        _read_back_fingerprints(catalog, resource, todo)
    save_objects(_states_of(items))


def _shown_progress(catalog: Catalog, resource: Resource, count: int) -> ContextManager[Any]:
    """Inside `with`, the objects are shown as progress; or their rows, if these are copied too."""
    if resource.name in ROW_KINDS and not catalog.settings.no_rows:
        return contextlib.nullcontext()
    return catalog.run.live.working(_unit(resource), count)


def _unit(resource: Resource) -> str:
    return resource.name.replace("_", " ")


def _read_back_fingerprints(
    catalog: Catalog, resource: Resource, items: Sequence[PlannedObject]
) -> None:
    """Take the fingerprints of created objects from one list per project, not from the answers.

    A later start compares with what is read. An object that somebody has changed since its creation
    (it has another transaction) keeps the fingerprint of the answer.
    """
    created: Dict[str, List[PlannedObject]] = {}
    for item in items:
        if item.states.outcome_of(item.source["id"]) == CREATED:
            created.setdefault(item.dest_project_id, []).append(item)
    for project_id, items_of_project in created.items():
        params = {"project_id": project_id} if project_id else {}
        page_size = catalog.settings.batch_size
        try:
            listed = list(catalog.dest.list(resource.path, params, page_size=page_size))
        except ApiError as error:
            log.warning("%s cannot be read back: %s", resource.name, error)
            continue
        by_id = {obj["id"]: obj for obj in listed}
        for item in items_of_project:
            source_id = item.source["id"]
            read = by_id.get(item.states.outcomes[source_id].dest_id)
            answered = catalog.written.get(source_id)
            if read and answered in (None, read.get("_xact_id")):
                prints = fingerprints_of(resource, item.source, read)
                record_fingerprints(catalog, resource, item, prints)


def _decidable(
    catalog: Catalog, resource: Resource, items: Sequence[PlannedObject]
) -> List[PlannedObject]:
    """Returns the objects of projects that the destination lists.

    The others are recorded as failed: without the list, creating could duplicate or overwrite an
    object.
    """
    refused: Set[str] = set()
    for place in {item.dest_project_id or "" for item in items}:
        try:
            catalog.index.by_key(resource, place)
        except ApiError as error:
            refused.add(place)
            catalog.lists.refuse(resource, error)
            of_place = [item for item in items if (item.dest_project_id or "") == place]
            record_undecided(catalog, resource, of_place, error)
    return [item for item in items if (item.dest_project_id or "") not in refused]


def record_undecided(
    catalog: Catalog, resource: Resource, items: Sequence[PlannedObject], error: ApiError
) -> None:
    """Record objects as failed because the destination's list was refused."""
    for item in items:
        ended = item.states.completed(item.source["id"])
        if ended or skip_reason(catalog, resource, item.source):
            continue
        name = display_name(resource, item.source)
        failed = ObjectOutcome(name, FAILED, reason=str(error))
        item.states.record(item.source["id"], failed)
        not_created = object_finding(resource, item, "not_created", detail=str(error))
        item.states.note(item.source["id"], [not_created])
    failed_text = count_and_noun(len(items), resource.name)
    log.error("failed %s: the destination's list cannot be read: %s", failed_text, error)
    save_objects(_states_of(items))


def _ignore(_: PlannedObject) -> None:
    return


def _is_to_do(catalog: Catalog, resource: Resource, item: PlannedObject) -> bool:
    """Whether the object is to be planned. One that is not to be moved is recorded as skipped."""
    source_id = item.source["id"]
    has_bundle = _can_upload(catalog, resource, item)
    is_open = item.states.has_no_place(source_id) or _is_open_conflict(catalog, resource, item)
    # The state that a snapshot names may be there now.
    before = item.states.overall(source_id)
    is_open = is_open or (before is not None and before.reason == NO_STATE)
    if item.states.completed(source_id) and not (is_open or has_bundle):
        return False
    reason = "" if has_bundle else skip_reason(catalog, resource, item.source)
    if reason:
        _record_skipped(catalog, resource, item, reason)
    elif resource.name in catalog.lists.unknown_there:
        _record_skipped(catalog, resource, item, NOT_KNOWN_THERE)
        is_asked_for = _is_asked_for(catalog, resource, item)
        kind = "kind_not_offered" if is_asked_for else "kind_not_known"
        item.states.note(source_id, [object_finding(resource, item, kind)])
    else:
        return True
    return False


def _is_asked_for(catalog: Catalog, resource: Resource, item: PlannedObject) -> bool:
    """Whether a person asked for the object: for its kind by name, or by an option."""
    settings = catalog.settings
    words = resource.acts(item.source)
    return (
        resource.name in settings.named_resources
        or bool(resource.asked_by and getattr(settings, resource.asked_by))
        or bool(words and not missing_words(words, settings.activate))
    )


def _can_upload(catalog: Catalog, resource: Resource, item: PlannedObject) -> bool:
    """Whether a person has the code bundle of an object that is missing in the destination."""
    file = bundle_file(catalog.lists, resource, item.source)
    return file is not None and counterpart_id(catalog, resource, item) is None


def _is_open_conflict(catalog: Catalog, resource: Resource, item: PlannedObject) -> bool:
    """Whether an earlier process left the object as it was, and the policy has changed."""
    left_alone = item.states.outcome_of(item.source["id"]) == DIFFERS
    return left_alone and policy_of(catalog, resource) != KEEP_POLICY


def _needs(catalog: Catalog, resource: Resource, item: PlannedObject, among: Set[str]) -> Set[str]:
    """Returns the ids of the objects that must be written before this one.

    These are the objects to which it refers, and the one whose counterpart has its name, until that
    is renamed.
    """
    needed = dependencies(resource, item.source, among) if resource.references else set()
    if resource.scope != OWNER and item.dest_project_id is not None:
        key = natural_key(resource, item.source)
        there = catalog.index.by_key(resource, item.dest_project_id).get(key)
        holder = catalog.ids.source_id(resource.name, there["id"]) if there else None
        if holder in among and holder != item.source["id"]:
            needed = needed | {holder}
    return needed


def _record_skipped(catalog: Catalog, resource: Resource, item: PlannedObject, reason: str) -> None:
    source = item.source
    name = display_name(resource, source)
    made_by_others = reason == BUILT_IN or can_be_made_by_hand(resource, source)
    dest_id = counterpart_id(catalog, resource, item) if made_by_others else None
    skipped = ObjectOutcome(name, SKIPPED, dest_id=dest_id or "", reason=reason)
    item.states.record(source["id"], skipped)
    if can_be_made_by_hand(resource, source):
        item.states.note(source["id"], [] if dest_id else [not_readable(resource, item, reason)])
    extra = log_fields("skipped", resource, item, reason=reason)
    log.info("skipped %s %r: %s", resource.kind, name, reason, extra=extra)


# -- batches


@dataclass(frozen=True)
class Batch:
    """Objects that are written together."""

    items: Sequence[PlannedObject]
    futures: Sequence[Future[None]]


@dataclass(frozen=True)
class _LevelCopy:
    """Copies objects that do not depend on each other, batch by batch.

    While one batch is written, the next one is planned and waits for a thread.
    """

    writer: ObjectWriter
    pool: ThreadPoolExecutor
    on_created: OnCreated

    def run(self, items: Sequence[PlannedObject]) -> None:
        settings = self.writer.catalog.settings
        least = min(settings.batch_size, settings.checkpoint_interval)
        size = max(least, len(items) // MAX_BATCHES)
        under_way: Deque[Batch] = deque()
        try:
            for batch in portions(items, size):
                self.writer.catalog.dest.check()
                under_way.append(self._begin(batch))
                if len(under_way) > 1:
                    self._finish(under_way[0])
                    under_way.popleft()
            while under_way:
                self._finish(under_way[0])
                under_way.popleft()
        except BaseException:
            # Started batches are finished and saved; no other one begins.
            _drain(under_way)
            raise

    def _begin(self, items: Sequence[PlannedObject]) -> Batch:
        """Save what is about to be created and what is about to be overwritten, then start.

        After a crash in between, the next process recognizes its own objects, and undo knows all.
        """
        catalog, resource = self.writer.catalog, self.writer.resource
        plans = [self._plan(item) for item in items]
        if not catalog.settings.dry_run:
            by_states = [
                [plan for plan in plans if plan.item.states is states and not plan.prepared.blocked]
                for states in _states_of(items)
            ]
            changed = [
                plans for plans in by_states if plans and _note_intentions(catalog, resource, plans)
            ]
            save_objects([plans[0].item.states for plans in changed])
        return Batch(items, [self.pool.submit(self.writer.apply, plan) for plan in plans])

    def _plan(self, item: PlannedObject) -> ObjectPlan:
        """Plan an object. A destination object that has its name is renamed first."""
        plan = plan_item(self.writer.catalog, self.writer.resource, item)
        if plan.prepared.namesake is not None and not plan.prepared.blocked:
            try:
                self.writer.rename_namesake(item, plan.prepared.namesake)
            except ApiError as error:
                plan.prepared.blocked = f"what has its name cannot be renamed: {error}"
        return plan

    def _finish(self, batch: Batch) -> None:
        for item, future in zip(batch.items, batch.futures):
            future.result()
            self.writer.catalog.run.live.step(_unit(self.writer.resource))
            self.on_created(item)
        done = set()
        for item in batch.items:
            entry = item.states.outcomes[item.source["id"]]
            # Of an object that waits, an earlier start may have written some versions.
            if not entry.in_doubt and entry.outcome != WAITING:
                done.add(item.source["id"])
        for states in _states_of(batch.items):
            states.intended = {
                source_id: intent
                for source_id, intent in states.intended.items()
                if source_id not in done
            }
            for source_id in done:
                states.begun_versions.pop(source_id, None)
        _save_batch(batch.items)


def _drain(under_way: Iterable[Batch]) -> None:
    batches = list(under_way)
    for batch in batches:
        for future in batch.futures:
            future.cancel()
    for batch in batches:
        wait(batch.futures)
        _save_batch(batch.items)


def _note_intentions(catalog: Catalog, resource: Resource, plans: Sequence[ObjectPlan]) -> bool:
    """Record what is about to be written. Returns whether there is something new to save.

    What a killed process recorded stays.
    """
    states = plans[0].item.states
    intended = {
        plan.action.source_id: _intent(catalog, resource, plan)
        for plan in plans
        if plan.action.verb == CREATE
    }
    states.intended.update(intended)
    updates = [plan.action for plan in plans if plan.action.verb == UPDATE]
    noted = [note_update(resource, states, action) for action in updates]
    return bool(intended) or any(noted)


def _intent(catalog: Catalog, resource: Resource, plan: ObjectPlan) -> Intention:
    """Returns how to find the object if this process is killed before recording it."""
    body = plan.action.body
    return Intention(
        key=list(dest_key(resource, plan.item.source, body)),
        project=plan.item.dest_project_id,
        fingerprint=fingerprint(resource, resource.without_patch_only(body)),
        at=catalog.dest.clock.earliest_s(),
    )


def _save_batch(items: Sequence[PlannedObject]) -> None:
    for states in _states_of(items):
        states.settle([item.source["id"] for item in items if item.states is states])
    save_objects(_states_of(items))


def _states_of(items: Sequence[PlannedObject]) -> List[ObjectStates]:
    return list({id(item.states): item.states for item in items}.values())
