"""Ways to damage a destination for the tests of verify, each with what verify should find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Tuple

from bt_migrate.sandbox.data import inserts as inserts
from bt_migrate.sandbox.data.rows import CONTENT, SPAN_IDS
from tests.support.orgs import Pair

Json = Dict[str, Any]
Found = Tuple[
    str, str, str, str, Tuple[str, ...]
]  # (outcome, resource, name of the object, row, fields)

LOGS = ("logs", "Alpha/α")
KIND_OF = {"logs": "project_logs", "experiments": "experiment", "datasets": "dataset"}
HOLDER_OF = {"logs": "project", "experiments": "experiment", "datasets": "dataset"}


@dataclass
class Damaged:
    """The destination while it is damaged."""

    pair: Pair

    def find(self, kind: str, name: str) -> Json:
        """The destination's object of that name or slug."""
        found: Json = next(
            obj
            for obj in self.pair.dest.objects(kind)
            if name in (obj.get("name"), obj.get("slug"))
        )
        return found

    def source_id(self, kind: str, name: str) -> str:
        return str(next(obj["id"] for obj in self.pair.source.objects(kind) if obj["name"] == name))

    def row(self, resource: str, name: str, row_id: str) -> Json:
        """The insertable fields of a row of the destination."""
        kind = KIND_OF[resource]
        rows = self.pair.dest.rows(kind, self.find(HOLDER_OF[resource], name)["id"])
        row = next(row for row in rows if row["id"] == row_id)
        return {
            key: row[key]
            for key in ("id", "created", *SPAN_IDS, *CONTENT[kind])
            if row.get(key) is not None
        }

    def write(self, resource: str, name: str, *rows: Json) -> None:
        self.pair.dest.insert(KIND_OF[resource], self.find(HOLDER_OF[resource], name)["id"], rows)

    def forget_comments(
        self, resource: str, name: str, row_id: str, change: Callable[[Json], Json]
    ) -> None:
        kind, object_id = KIND_OF[resource], self.find(HOLDER_OF[resource], name)["id"]
        with self.pair.sandbox.store.lock:
            comments = inserts.row_set(
                self.pair.sandbox.store, (self.pair.dest.id,), kind, object_id
            ).comments
            comments[row_id] = change(comments[row_id])
        self.write(resource, name, self.row(resource, name, row_id))


@dataclass(frozen=True)
class Damage:
    """`apply` damages; `found` is what verify has to say of it."""

    about: str
    apply: Callable[[Damaged], Any]
    found: Tuple[Found, ...]


def edited(
    about: str,
    resource: str,
    name: str,
    row: str,
    change: Callable[[Json, Damaged], Any],
    *fields: str,
) -> Damage:
    """One row changed; without fields, in a way that is tolerated."""

    def apply(world: Damaged) -> None:
        value = world.row(resource, name, row)
        change(value, world)
        world.write(resource, name, value)

    found = (("differs", f"rows of {resource}", name, row, fields),) if fields else ()
    return Damage(about, apply, found)


def removed(resource: str, name: str, row: str) -> Damage:
    gone = {"id": row, "_object_delete": True}
    return Damage(
        f"{resource} row removed",
        lambda w: w.write(resource, name, gone),
        (("missing", f"rows of {resource}", name, row, ()),),
    )


def put(*path: Any) -> Callable[[Json, Damaged], None]:
    """Set the last of the path at the place that the rest names."""

    def change(row: Json, _: Damaged) -> None:
        holder: Any = row
        for step in path[:-2]:
            holder = holder[step]
        holder[path[-2]] = path[-1]

    return change


def drop(*path: Any) -> Callable[[Json, Damaged], None]:
    def change(row: Json, _: Damaged) -> None:
        holder: Any = row
        for step in path[:-1]:
            holder = holder[step]
        del holder[path[-1]]

    return change


def patched(
    about: str,
    kind: str,
    name: str,
    resource: str,
    body: Callable[[Json, Damaged], Json],
    *fields: str,
) -> Damage:
    """One object changed."""

    def apply(world: Damaged) -> None:
        existing = world.find(kind, name)
        world.pair.dest.patch(kind, existing["id"], body(existing, world))

    return Damage(
        about,
        apply,
        (("differs", resource, {"ask": "Ask", "scorer": "Scorer"}.get(name, name), "", fields),),
    )


def other_bytes(row: Json, world: Damaged) -> None:
    """One byte of the picture that this row alone refers to."""
    old = row["input"]["own"]
    content = bytearray(world.pair.dest.attachment(old["key"]))
    content[7] ^= 1
    row["input"]["own"] = {
        **world.pair.dest.attach(bytes(content), old["filename"], old["content_type"])
    }


def same_bytes(row: Json, world: Damaged) -> None:
    old = row["input"]["own"]
    row["input"]["own"] = world.pair.dest.attach(
        world.pair.dest.attachment(old["key"]), old["filename"], old["content_type"]
    )


def rewrite_bytes(world: Damaged) -> None:
    key = world.row("logs", "beta", "0022")["input"]["own"]["key"]
    world.pair.sandbox.files.blobs[(world.pair.dest.id, key)] = b"other bytes"


def config(**more: Any) -> Callable[[Json, Damaged], Json]:
    return lambda obj, _: {"config": {**obj["config"], **more}}


def new_acl(world: Damaged) -> None:
    group = world.find("group", "people")["id"]
    body = {
        "object_type": "dataset",
        "object_id": world.find("dataset", "questions")["id"],
        "group_id": group,
        "permission": "delete",
    }
    world.pair.dest.create("acl", body)


def delete_where(kind: str, **facts: Any) -> Callable[[Damaged], None]:
    def apply(world: Damaged) -> None:
        chosen = next(
            obj
            for obj in world.pair.dest.objects(kind)
            if all(obj.get(name) == value for name, value in facts.items())
        )
        world.pair.dest.delete(kind, chosen["id"])

    return apply


def create(kind: str, project: str, **fields: Any) -> Callable[[Damaged], None]:
    return lambda world: world.pair.dest.create(
        kind, {"project_id": world.find("project", project)["id"], **fields}
    )


def moved_row(world: Damaged) -> None:
    row = world.row("experiments", "first", "e9")
    world.write("experiments", "middle", {**row, "id": "e9 moved"})
    world.write("experiments", "first", {"id": "e9", "_object_delete": True})


def swap_inputs(world: Damaged) -> None:
    first, other = world.row(*LOGS, "0112"), world.row(*LOGS, "0113")
    world.write(*LOGS, {**first, "input": other["input"]}, {**other, "input": first["input"]})
