"""What the sandbox holds: organizations, keys, objects. The caller holds the lock."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

import bt_migrate.sandbox.data.clock as keys
from bt_migrate.sandbox.data.behaviour import Behaviour
from bt_migrate.sandbox.data.errors import Missing, Refused
from bt_migrate.sandbox.data.rows import RowSet
from bt_migrate.sandbox.data.schema import KIND_OF_OBJECT_TYPE, KINDS, Kind, linked

Json = Dict[str, Any]
__all__ = ["Entry", "Json", "Key", "Org", "Refused", "Store"]

ORG_SETTINGS = (
    "api_url is_universal_api is_dataplane_private proxy_url realtime_url image_rendering_mode"
).split()
BUILT_IN_ROLES = (
    ("Owner", "create read update delete create_acls read_acls update_acls delete_acls"),
    ("Engineer", "create read update delete"),
    ("Viewer", "read"),
)


class Entry:
    """One live object. `data` is what a reader sees; `history` holds earlier (moment, data)."""

    __slots__ = (
        "store", "org_id", "number", "data", "history", "has_secret", "environments", "assigned",
    )  # fmt: skip

    def __init__(self, store: str, org_id: Optional[str], number: int, data: Json) -> None:
        self.store = store
        self.org_id = org_id
        self.number = number  # order of creation
        self.data = data
        self.history: List[Tuple[int, Json]] = []
        self.has_secret = False
        self.environments: Dict[str, str] = {}  # environment slug -> version
        self.assigned: Dict[str, str] = {}  # environment slug -> date of its first assignment


@dataclass
class Org:
    """An organization. Its users have ids of their own, whatever their e-mail addresses."""

    id: str
    data: Json
    users: List[str] = field(default_factory=list)  # ids, in order of joining

    @property
    def name(self) -> str:
        return str(self.data["name"])


@dataclass(frozen=True)
class Key:
    """The organizations of an API key; the first is its default."""

    org_ids: Tuple[str, ...]
    read_only: bool = False


class Store:
    """Objects by store and id, and an index of their natural keys."""

    def __init__(self, behaviour: Optional[Behaviour] = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.lock = threading.RLock()
        self.clock = keys.Clock()
        self.orgs: Dict[str, Org] = {}
        self.keys: Dict[str, Key] = {}
        self.entries: Dict[str, Dict[str, Entry]] = {kind.store: {} for kind in KINDS.values()}
        self.index: Dict[Tuple[Any, ...], Entry] = {}
        self.rows: Dict[Tuple[str, str], RowSet] = {}  # (project_logs|experiment|dataset, id)
        # Whether a comment is a new transaction of its row, which is not documented.
        self.comments_move_rows = False
        self._created = 0
        for name, permissions in BUILT_IN_ROLES:
            self._add_built_in_role(name, permissions.split())

    def _add_built_in_role(self, name: str, permissions: List[str]) -> None:
        granted = [
            {"permission": permission, "restrict_object_type": None} for permission in permissions
        ]
        data = dict.fromkeys(("org_id", "user_id", "description", "deleted_at"))
        data.update(id=keys.new_id(), name=name, created=self.clock.timestamp(), member_roles=None)
        data.update(member_permissions=granted)
        self.add(KINDS["role"], None, data)

    # -- objects

    def add(self, kind: Kind, org_id: Optional[str], data: Json) -> Entry:
        self._created += 1
        entry = Entry(kind.store, org_id, self._created, data)
        self.entries[kind.store][data["id"]] = entry
        self.index_entry(kind, entry)
        return entry

    def index_entry(self, kind: Kind, entry: Entry) -> None:
        for key in natural_keys(kind, entry.org_id, entry.data):
            self.index.setdefault(key, entry)

    def unindex_entry(self, kind: Kind, entry: Entry) -> None:
        for key in natural_keys(kind, entry.org_id, entry.data):
            if self.index.get(key) is entry:
                del self.index[key]

    def remove(self, entry: Entry) -> None:
        """Remove an object, and with it what it owns."""
        self.unindex_entry(KINDS[entry.store], entry)
        del self.entries[entry.store][entry.data["id"]]
        owner = {"project": "project_id", "dataset": "dataset_id"}.get(entry.store)
        if owner is None:
            return
        for owned in [other for store in self.entries.values() for other in store.values()]:
            # Experiments only link to datasets; snapshots belong to them.
            belongs = owner == "project_id" or owned.store == "dataset_snapshot"
            if belongs and owned.data.get(owner) == entry.data["id"]:
                self.remove(owned)

    def find(self, kind: Kind, org_ids: Iterable[str], object_id: Any) -> Optional[Entry]:
        """The live object of that kind and id that somebody in these organizations can see."""
        entry = self.entries[kind.store].get(object_id) if isinstance(object_id, str) else None
        visible = entry is not None and (entry.org_id is None or entry.org_id in org_ids)
        return entry if entry is not None and visible and is_shown_as(kind, entry.data) else None

    def exists(self, kind_name: str, org_id: str, object_id: str) -> bool:
        if kind_name == "organization":
            return object_id == org_id
        return self.find(KINDS[kind_name], (org_id,), object_id) is not None

    def check_links(self, kind: Kind, org_id: str, data: Mapping[str, Any]) -> None:
        """Refuse ids of objects that do not exist in the organization."""
        for path, target in kind.links:
            for where, object_id, holder in linked(data, path):
                name = target
                if target.startswith("@"):
                    name = KIND_OF_OBJECT_TYPE.get(str(holder.get(target[1:])), "")
                if not name or not self.exists(name, org_id, object_id):
                    if self.behaviour.refusals_as_text:
                        raise Refused(400, Missing(name or "object", object_id).text)
                    text = "%s: %s refers to %s '%s', which does not exist in this organization"
                    raise Refused(
                        400, text % (kind.name, where, name or "an unknown kind", object_id)
                    )

    # -- organizations and keys

    def add_org(self, name: str, users: Iterable[Mapping[str, Any]]) -> Org:
        if any(org.name == name for org in self.orgs.values()):
            raise ValueError(f"there is an organization '{name}' already")
        data: Json = dict.fromkeys(ORG_SETTINGS)
        data.update(id=keys.new_id(), name=name, created=self.clock.timestamp())
        org = Org(data["id"], data)
        self.orgs[org.id] = org
        # A key acts as a user, so there is always one.
        for user in list(users) or [
            {"email": "owner@{}.example".format(name.lower().replace(" ", "-"))}
        ]:
            self.add_user(org, user)
        return org

    def add_user(self, org: Org, user: Mapping[str, Any]) -> str:
        data: Json = dict.fromkeys(("given_name", "family_name", "avatar_url"))
        data.update(
            copy.deepcopy(dict(user)),
            id=user.get("id") or keys.new_id(),
            created=self.clock.timestamp(),
        )
        self.add(KINDS["user"], org.id, data)
        org.users.append(data["id"])
        return str(data["id"])

    def org_by_name(self, org_ids: Iterable[str], name: Any) -> Org:
        for org_id in org_ids:
            if name in (self.orgs[org_id].name, org_id):
                return self.orgs[org_id]
        raise Missing("organization", name)


def is_shown_as(kind: Kind, data: Mapping[str, Any]) -> bool:
    """Whether the kind shows the object: every prompt is a function, but not the reverse."""
    return kind.name != "prompt" or (data.get("function_data") or {}).get("type") == "prompt"


def natural_keys(
    kind: Kind, org_id: Optional[str], data: Mapping[str, Any]
) -> List[Tuple[Any, ...]]:
    values = dict(data, org_id=org_id)
    return [(kind.store,) + key + tuple(values.get(name) for name in key) for key in kind.unique]
