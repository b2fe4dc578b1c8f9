"""The order in which people see scores and tags: the order of creation, since no endpoint takes a
position.
"""

from __future__ import annotations

from bt_migrate.model.findings import finding
from bt_migrate.model.resource import Resource
from bt_migrate.objects.catalog import Catalog
from bt_migrate.state.object_states import ObjectStates

NOT_KEPT = "order_not_kept"


def note_order(
    catalog: Catalog, resource: Resource, states: ObjectStates, source_project: str, project: str
) -> None:
    """Report it once where the destination shows the objects of a project in another order.

    Some were there before, or were created after the rows. What was just created comes last.
    """
    wanted = [obj["id"] for obj in catalog.lists.source_objects(resource, source_project)]
    if len(wanted) < 2 or resource.name in catalog.lists.refusals:
        return
    there = [
        catalog.ids.source_id(resource.name, obj["id"])
        for obj in catalog.index.objects(resource, project)
    ]
    shown = list(dict.fromkeys(source_id for source_id in there if source_id in wanted))
    wanted = [source_id for source_id in wanted if source_id in shown]
    for source_id, findings in list(states.findings.items()):
        states.note(source_id, [other for other in findings if other["kind"] != NOT_KEPT])
    if shown != wanted:
        first = next(source_id for source_id, other in zip(wanted, shown) if source_id != other)
        entry = states.overall(first)
        name = entry.name if entry else first
        facts = {"resource": resource.name, "id": first, "name": name}
        record = finding(NOT_KEPT, project=states.project, **facts)
        states.note(first, [*states.findings.get(first, []), record])
