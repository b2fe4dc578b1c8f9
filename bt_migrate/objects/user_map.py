"""Applies --user-map: a user of the source is looked up by the address in the destination.

A run remembers the map as ids of users: source id -> destination id, "" while the destination does
not list the user.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Sequence, Set

from bt_migrate.config.user_map import MappedUser, UserMap
from bt_migrate.errors import UsageError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.report.display import and_more

MAX_LINES_SHOWN = 5
# Field of a mapped user: the address in the source.
SOURCE_ADDRESS = "source_email"
# The line of a user whom the run remembers, not the file.
REMEMBERED = 0


def mapped_users(users: List[JsonObject], user_map: UserMap) -> List[JsonObject]:
    """The source's users with the addresses that they have in the destination.

    Raises UsageError for a user whom the source does not have, and where another user of the source
    would be the same user of the destination.
    """
    if not user_map:
        return users
    addresses = {address_of(user) for user in users}
    _refuse_lines(user_map, user_map.keys() - addresses, "the source has no user of that address")
    unmapped = addresses - user_map.keys()
    taken = {old for old, new in user_map.items() if new.line and new.email in unmapped}
    reason = "another user of the source has that address in the destination; map that one too"
    _refuse_lines(user_map, taken, reason)
    return [_mapped(user, user_map) for user in users]


def _mapped(user: Dict[str, Any], user_map: UserMap) -> Dict[str, Any]:
    new = user_map.get(address_of(user))
    return {**user, "email": new.email, SOURCE_ADDRESS: user["email"]} if new else user


def mapped_ids(
    source_users: Iterable[Mapping[str, Any]], dest_users: Iterable[Mapping[str, Any]]
) -> Dict[str, str]:
    """Returns what a run remembers of the map that was applied to `source_users`."""
    there = {address_of(user): user["id"] for user in dest_users}
    return {
        user["id"]: there.get(address_of(user), "")
        for user in source_users
        if SOURCE_ADDRESS in user
    }


def remembered_map(
    ids: Mapping[str, str],
    source_users: Iterable[Mapping[str, Any]],
    dest_users: Iterable[Mapping[str, Any]],
) -> UserMap:
    """Returns the map that a run remembers.

    A user whom the destination does not list has no address there, and so no counterpart.
    """
    addresses = {user["id"]: address_of(user) for user in dest_users}
    return {
        address_of(user): MappedUser(addresses.get(ids[user["id"]], ""), REMEMBERED)
        for user in source_users
        if user["id"] in ids
    }


def shown_address(user: Mapping[str, Any]) -> str:
    """Returns the address of a user who is missing in the destination, "" without one."""
    if SOURCE_ADDRESS in user and not user["email"]:
        return f"{user[SOURCE_ADDRESS]} (give --user-map again)"
    return str(user.get("email") or "")


def contradiction(
    user_map: UserMap,
    remembered: Mapping[str, str],
    source_users: Iterable[Mapping[str, Any]],
    dest_users: Iterable[Mapping[str, Any]],
) -> str:
    """Returns where the file differs from the map that the run remembers, "" if nowhere.

    `remembered`: the ids that the run remembers. The file may have more users.
    """
    users = [user for user in source_users if remembered.get(user["id"])]
    ids = mapped_ids(users, dest_users)
    lines = [
        user_map[user[SOURCE_ADDRESS].lower()].line
        for user in users
        if ids.get(user["id"]) and ids[user["id"]] != remembered[user["id"]]
    ]
    if lines:
        return _lines_text(lines)
    missing = next((user for user in users if SOURCE_ADDRESS not in user), None)
    return f"no line for user {missing['id']} of the source" if missing else ""


def refuse_strangers(user_map: UserMap, dest_users: Iterable[Mapping[str, Any]]) -> None:
    """Raises UsageError for a user whom the destination does not have."""
    there = {address_of(user) for user in dest_users}
    strangers = {old for old, new in user_map.items() if new.email not in there}
    reason = (
        "the destination has no member of that address; invite that user, or add --invite-users"
    )
    _refuse_lines(user_map, strangers, reason)


def address_of(user: Mapping[str, Any]) -> str:
    """The user's address in lower case, "" without one."""
    address = user.get("email")
    return address.lower() if isinstance(address, str) else ""


def _refuse_lines(user_map: UserMap, addresses: Set[str], reason: str) -> None:
    if addresses:
        lines = _lines_text([user_map[address].line for address in addresses])
        raise UsageError(f"--user-map, {lines}: {reason}")


def _lines_text(lines: Sequence[int]) -> str:
    """`line 3`, `lines 1, 2 and 7 more`"""
    first = ", ".join(map(str, sorted(lines)[:MAX_LINES_SHOWN]))
    noun = "line" if len(lines) == 1 else "lines"
    return f"{noun} {and_more(first, len(lines) - MAX_LINES_SHOWN)}"
