"""The effects of POST, PUT, PATCH, GET and DELETE of an object. The caller holds the lock."""

from __future__ import annotations

import copy
import re
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Tuple

import bt_migrate.sandbox.data.clock as keys
from bt_migrate.sandbox.data.behaviour import Behaviour
from bt_migrate.sandbox.data.errors import Missing, Refused
from bt_migrate.sandbox.data.schema import NEVER_READ, Kind, problem_of_fields
from bt_migrate.sandbox.data.store import Entry, Json, Org, Store, is_shown_as, natural_keys

# An experiment list is cut at 1000 unless told otherwise; no other list documents a limit.
EXPERIMENT_LIST_LIMIT = 1000
FUNCTION_ONLY = ("function_data", "origin", "function_schema")
# What the answer of POST of a function holds besides the fields that were sent.
SET_BY_SERVER = ("id", "created", "org_id", "log_id", "_xact_id")


def render(kind: Kind, entry: Entry, behaviour: Behaviour) -> Json:
    """Returns a deep copy of the object as GET of `kind` shows it."""
    data = copy.deepcopy(entry.data)
    if kind.name == "prompt":
        for name in FUNCTION_ONLY:
            data.pop(name, None)
        if behaviour.prompts_show_function_data:
            data["function_data"] = {"type": "prompt"}
    for name in _unknown(kind, behaviour):
        data.pop(name, None)
    return data


def _unknown(kind: Kind, behaviour: Behaviour) -> FrozenSet[str]:
    """The fields of a kind that an older data plane does not have."""
    unknown = frozenset() if behaviour.knows_october_2026 else kind.later
    if kind.name == "dataset" and not behaviour.datasets_have_tags:
        unknown |= {"tags"}
    return unknown


def created_answer(kind: Kind, entry: Entry, body: Json, behaviour: Behaviour) -> Json:
    """Returns the answer of POST, which may have fewer fields than the answer of GET."""
    value = render(kind, entry, behaviour)
    if kind.store == "function" and behaviour.post_writes_versions:
        sent = {name: entry.data.get(name, body[name]) for name in body if name != "org_name"}
        return dict(sent, **{name: value[name] for name in SET_BY_SERVER})
    if kind.name == "group" and behaviour.groups_without_members:
        del value["member_users"], value["member_groups"]
    return value


# -- create and replace


def create(
    store: Store, org: Org, kind: Kind, body: Any, *, replace: bool = False
) -> Tuple[Entry, bool]:
    """Returns the object, and whether it existed. POST keeps such an object, PUT replaces it."""
    problem = problem_of_fields(body, _accepted(store, kind, kind.create), kind.required, kind.name)
    if problem:
        raise Refused(400, problem)
    body = copy.deepcopy(body)
    _check_rules(store, org, kind, body)
    store.check_links(kind, org.id, body)
    data = _complete(store, org, kind, body)
    existing = _existing(store, org, kind, data)
    if existing is not None and body.get("ensure_new"):
        data["name"] += "-" + keys.new_id()[:8]
        existing = None
    if existing is not None:
        writes_version = kind.store == "function" and store.behaviour.post_writes_versions
        if replace or writes_version:
            _replace(store, kind, existing, data, body)
        return existing, not writes_version
    entry = store.add(kind, org.id, data)
    _remember(store, entry, body)
    if body.get("project_group_name"):
        _join_group(store, org, entry, body["project_group_name"])
    return entry, False


def _join_group(store: Store, org: Org, project: Entry, name: str) -> None:
    group = store.index.get(("project_group", "org_id", "name", org.id, name))
    if group is None:
        raise Refused(400, f"project: there is no project group '{name}'")
    group.data["member_projects"] = [*group.data["member_projects"], project.data["id"]]


def _accepted(store: Store, kind: Kind, fields: Mapping[str, str]) -> Dict[str, str]:
    """The fields that a body may have."""
    unknown = _unknown(kind, store.behaviour)
    return {name: of for name, of in fields.items() if name not in unknown}


def _existing(store: Store, org: Org, kind: Kind, data: Json) -> Optional[Entry]:
    for key in natural_keys(kind, org.id, data):
        if key in store.index:
            return store.index[key]
    return None


def _check_rules(store: Store, org: Org, kind: Kind, body: Json) -> None:
    """Check rules of single kinds that the table of fields cannot express."""
    if kind.name == "acl":
        _check_acl(body)
    if kind.name == "dataset_snapshot":
        rows = store.rows.get(("dataset", body["dataset_id"]))
        if rows is None or keys.moment_of_xact(body["xact_id"]) not in rows.moments:
            raise Refused(
                400,
                "dataset_snapshot: '{}' is no transaction of the dataset".format(body["xact_id"]),
            )
    for slug in body.get("environment_slugs") or []:
        if (("environment", "org_id", "slug", org.id, slug)) not in store.index:
            raise Refused(400, f"{kind.name}: environment '{slug}' does not exist")
    if kind.name == "role" and any(
        entry.org_id is None and entry.data["name"] == body["name"]
        for entry in store.entries["role"].values()
    ):
        raise Refused(400, "role: '{}' is a built-in role".format(body["name"]))


def _check_acl(body: Json) -> None:
    if (body.get("user_id") is None) == (body.get("group_id") is None):
        raise Refused(400, "acl: exactly one of user_id and group_id must be given")
    if (body.get("permission") is None) == (body.get("role_id") is None):
        raise Refused(400, "acl: exactly one of permission and role_id must be given")
    if body.get("role_id") is not None and body.get("restrict_object_type") is not None:
        raise Refused(400, "acl: restrict_object_type cannot be given with role_id")


def _complete(store: Store, org: Org, kind: Kind, body: Json) -> Json:
    """A new object as it is read: the given fields, nulls for the others, the server's fields."""
    data: Json = dict.fromkeys(kind.read_only)
    data.update(dict.fromkeys(name for name in kind.create if name not in NEVER_READ))
    data.update((name, value) for name, value in body.items() if name not in NEVER_READ)
    data["id"] = keys.new_id()
    data.update(_stamps(store, org, kind, data, bool(body.get("ensure_new"))))
    if kind.name == "view" and data["user_id"] is None and store.behaviour.views_belong_to_caller:
        data["user_id"] = org.users[0]
    return _stored(store, kind, data)


def _stored(store: Store, kind: Kind, data: Json) -> Json:
    """Returns the object as the columns of the database store it."""
    if kind.store == "function" and store.behaviour.whole_numbers_in_functions:
        return {name: _whole_numbers(value) for name, value in data.items()}
    return data


def _whole_numbers(value: Any) -> Any:
    """1.0 becomes 1, at any depth."""
    if isinstance(value, dict):
        return {name: _whole_numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _stamps(store: Store, org: Org, kind: Kind, data: Json, ensure_new: bool) -> Json:
    """The values of the read-only fields of a new object."""
    moment = store.clock.next_moment()
    stamps: Json = {
        "org_id": org.id,
        "_object_org_id": org.id,
        "user_id": org.users[0],
        "created": store.clock.timestamp(),
        "_xact_id": keys.xact_id(moment),
        "log_id": "p",
        # A text that sorts in order of creation.
        "position": f"0|i{moment:012x}:",
        "slug": _slug(data.get("name")),
        "kind": "custom",
        "url_slug": _slug(data.get("name")),
        "commit": (data.get("repo_info") or {}).get("commit"),
        "secret_category": "env_var",
        "preview_name": "sk-****",
        "member_projects": [],
        "starred": False,
        "updated_at": store.clock.timestamp() if kind.name == "view" else None,
    }
    values = {name: stamps[name] for name in kind.read_only if name in stamps}
    if kind.name == "experiment":
        values.update(
            name=data["name"] or "experiment-" + keys.new_id()[:8], public=bool(data["public"])
        )
        if data["repo_info"] is None and ensure_new:
            values["repo_info"] = {}
    if kind.name == "prompt":
        values.update(dict.fromkeys(FUNCTION_ONLY), function_data={"type": "prompt"})
    return values


def _slug(name: Any) -> str:
    return re.sub("[^a-z0-9]+", "-", str(name).lower()).strip("-") or "untitled"


def _replace(store: Store, kind: Kind, entry: Entry, data: Json, body: Json) -> None:
    """PUT: replace all but the identity of an object; a secret that is not sent is kept."""
    for name in (
        "id",
        "created",
        "position",
        "user_id",
        "slug",
        "preview_secret",
        "secret_updated_at",
    ):
        if name in entry.data and (name not in kind.create or name == "id"):
            data[name] = entry.data[name]
    _change(store, kind, entry, data)
    _remember(store, entry, body)


def _change(store: Store, kind: Kind, entry: Entry, data: Json) -> None:
    """Make `data` the object's state; refuse it if another object has its natural key."""
    for key in natural_keys(kind, entry.org_id, data):
        if store.index.get(key, entry) is not entry:
            raise Refused(
                400,
                "{}: another one with the same {} exists".format(
                    kind.name, " and ".join(key[1:-1])
                ),
            )
    moment = store.clock.next_moment()
    if "_xact_id" in data:
        entry.history.append((keys.moment_of_xact(entry.data["_xact_id"]) or 0, entry.data))
        data["_xact_id"] = keys.xact_id(moment)
        if kind.store == "function" and store.behaviour.post_writes_versions:
            data["created"] = store.clock.timestamp()
    if "updated_at" in data:
        data["updated_at"] = store.clock.timestamp()
    store.unindex_entry(kind, entry)
    entry.data = data
    store.index_entry(kind, entry)


def _remember(store: Store, entry: Entry, body: Mapping[str, Any]) -> None:
    """Store fields that GET does not show: whether there is a secret, and environments."""
    secret = body.get("secret") if "secret" in body else body.get("value")
    if secret is not None:
        entry.has_secret = True
        entry.data["preview_secret"] = "********" + secret[-3:] if len(secret) > 8 else "********"
        entry.data["secret_updated_at"] = store.clock.timestamp()
    for slug in body.get("environment_slugs") or []:
        entry.environments[slug] = entry.data["_xact_id"]


# -- patch and delete


def patch(store: Store, org_ids: Sequence[str], kind: Kind, object_id: str, body: Any) -> Entry:
    """Change the given fields. Values are merged deeply; a null changes nothing."""
    problem = problem_of_fields(
        body, _accepted(store, kind, kind.patch), kind.patch_required, kind.name
    )
    if problem:
        raise Refused(400, problem)
    entry = _visible(store, org_ids, kind, object_id, body)
    if entry is None:
        raise Missing(kind.name, object_id, "update")
    if entry.org_id is None:
        raise Refused(
            403, {"Code": "ForbiddenError", "Message": "Built-in roles cannot be changed"}
        )
    body = copy.deepcopy(body)
    data = merged(entry.data, {name: value for name, value in body.items() if name in entry.data})
    if kind.name == "project" and body.get("settings") is not None:
        data["settings"] = body["settings"]
    for name, value in body.items():
        if name.startswith(("add_", "remove_")) and value is not None:
            _change_members(data, name, value)
    # Only what is sent is checked: an object may hold the id of another that was deleted since.
    added = {name[len("add_") :]: value for name, value in body.items() if name.startswith("add_")}
    store.check_links(kind, entry.org_id, dict(body, **added))
    _change(store, kind, entry, _stored(store, kind, data))
    _remember(store, entry, body)
    return entry


def merged(old: Any, new: Any) -> Any:
    """`new` merged deeply into `old`, both untouched; nulls and missing keys keep what is there."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return old if new is None else new
    result = dict(old)
    for name, value in new.items():
        result[name] = merged(old[name], value) if name in old else value
    return result


def _change_members(data: Json, name: str, values: List[Any]) -> None:
    verb, field = name.split("_", 1)
    members = list(data.get(field) or [])
    if verb == "add":
        data[field] = members + [value for value in values if value not in members]
    else:
        data[field] = [member for member in members if member not in values]


def delete(
    store: Store, org_ids: Sequence[str], kind: Kind, object_id: str, body: Any = None
) -> Json:
    entry = find_to_delete(store, org_ids, kind, object_id, body)
    if entry.org_id is None:
        raise Refused(
            403, {"Code": "ForbiddenError", "Message": "Built-in roles cannot be deleted"}
        )
    data = render(kind, entry, store.behaviour)
    store.remove(entry)
    if kind.store == "function" and store.behaviour.tombstone_of_functions:
        return _tombstone(store, data)
    return dict(data, deleted_at=store.clock.timestamp()) if "deleted_at" in data else data


def _tombstone(store: Store, data: Json) -> Json:
    """Returns the answer of DELETE of a function."""
    stone = {name: data[name] for name in ("log_id", "project_id", "slug", "id", "org_id")}
    stone.update(
        created=store.clock.timestamp(),
        _object_delete=True,
        _xact_id=keys.xact_id(store.clock.next_moment()),
    )
    return stone


# -- read


def get(
    store: Store,
    org_ids: Sequence[str],
    kind: Kind,
    object_id: str,
    owner: Optional[Mapping[str, Any]] = None,
) -> Entry:
    """The live object. `owner` holds object_type and object_id, which views are asked for with."""
    entry = _visible(store, org_ids, kind, object_id, owner)
    if entry is None:
        raise Missing(kind.name, object_id)
    return entry


def find_to_delete(
    store: Store, org_ids: Sequence[str], kind: Kind, object_id: str, owner: Any
) -> Entry:
    entry = _visible(store, org_ids, kind, object_id, owner)
    if entry is None:
        raise Missing(kind.name, object_id, "delete")
    return entry


def _visible(
    store: Store,
    org_ids: Sequence[str],
    kind: Kind,
    object_id: str,
    owner: Optional[Mapping[str, Any]],
) -> Optional[Entry]:
    entry = store.find(kind, org_ids, object_id)
    if kind.name == "view":
        _require_owner(owner or {})
        if entry is not None and not _same_owner(entry.data, owner or {}):
            return None
    return entry


def _require_owner(values: Mapping[str, Any]) -> None:
    for name in ("object_type", "object_id"):
        if not values.get(name):
            raise Refused(400, f"required parameter '{name}' is missing")


def _same_owner(data: Json, owner: Mapping[str, Any]) -> bool:
    return all(data[name] == owner[name] for name in ("object_type", "object_id"))


Query = Mapping[str, List[str]]  # a query string: name -> values


def list_page(store: Store, org_ids: Sequence[str], kind: Kind, query: Query) -> List[Entry]:
    """One page of a list, newest first. Undocumented parameters are ignored."""
    if kind.name in ("view", "acl"):
        _require_owner({name: query.get(name, [""])[0] for name in ("object_type", "object_id")})
    return select_page(list_all(store, org_ids, kind, query), query, _default_limit(kind))


def _default_limit(kind: Kind) -> Optional[int]:
    return EXPERIMENT_LIST_LIMIT if kind.name == "experiment" else None


def list_all(store: Store, org_ids: Iterable[str], kind: Kind, query: Query) -> List[Entry]:
    """All objects that the filters of the query let through, newest first."""
    visible = set(org_ids)
    wanted = _filters(kind, query)
    projects = _projects(store, visible, kind, query)
    return [
        entry
        for entry in reversed(list(store.entries[kind.store].values()))
        if (entry.org_id is None or entry.org_id in visible)
        and is_shown_as(kind, entry.data)
        and all(entry.data.get(name) in values for name, values in wanted)
        and (projects is None or entry.data["project_id"] in projects)
    ]


def _filters(kind: Kind, query: Query) -> List[Tuple[str, List[str]]]:
    names = {name: name for name in kind.filters}
    names.update({"ids": "id", "id": "id"})
    if "name" in kind.create:
        names["name" if kind.name == "environment" else kind.name + "_name"] = "name"
    if kind.name == "ai_secret":
        names["ai_secret_type"] = "type"
    return [(field, query[name]) for name, field in names.items() if name in query]


def _projects(
    store: Store, org_ids: Iterable[str], kind: Kind, query: Query
) -> Optional[List[str]]:
    """Ids of the projects that a list is restricted to; None for no restriction."""
    if not kind.by_project or not ("project_id" in query or "project_name" in query):
        return None
    return [
        entry.data["id"]
        for entry in store.entries["project"].values()
        if str(entry.org_id) in org_ids
        and entry.data["id"] in query.get("project_id", [entry.data["id"]])
        and entry.data["name"] in query.get("project_name", [entry.data["name"]])
    ]


def select_page(
    entries: List[Entry], query: Query, default_limit: Optional[int] = None
) -> List[Entry]:
    """The part of a newest-first list that limit, starting_after and ending_before ask for."""
    after, before = query.get("starting_after", [""])[0], query.get("ending_before", [""])[0]
    if after and before:
        raise Refused(400, "only one of starting_after and ending_before may be given")
    limit = _limit(query, default_limit)
    if after:
        entries = entries[_position(entries, after) + 1 :]
    if before:
        entries = entries[: _position(entries, before)]
        return entries if limit is None else entries[max(0, len(entries) - limit) :]
    return entries if limit is None else entries[:limit]


def _limit(query: Query, default: Optional[int]) -> Optional[int]:
    text = query.get("limit", [""])[0]
    if not text:
        return default
    if not re.fullmatch("[0-9]+", text):
        raise Refused(400, f"limit: expected a number that is not negative, got '{text}'")
    return int(text)


def _position(entries: List[Entry], object_id: str) -> int:
    for number, entry in enumerate(entries):
        if entry.data["id"] == object_id:
            return number
    raise Refused(400, f"cursor '{object_id}' is not the id of a listed object")


# -- versions


def at_version(entry: Entry, version: str) -> Json:
    """The state of a prompt or function as of a transaction; 400 if it did not exist then."""
    moment = keys.moment_of_xact(version)
    if moment is None:
        raise Refused(400, f"version '{version}' is not a transaction")
    states = entry.history + [(keys.moment_of_xact(entry.data["_xact_id"]) or 0, entry.data)]
    past = [data for written, data in states if written <= moment]
    if not past:
        raise Refused(400, f"there is no version '{version}'")
    return copy.deepcopy(past[-1])
