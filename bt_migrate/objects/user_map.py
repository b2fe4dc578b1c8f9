"""Applies --user-map: a user of the source is looked up by the address in the destination."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Set

from bt_migrate.config.user_map import UserMap
from bt_migrate.errors import UsageError

MAX_LINES_SHOWN = 5


def mapped_users(users: List[dict], user_map: UserMap) -> List[dict]:
    """The source's users with the addresses that they have in the destination.

    Raises UsageError for a user whom the source does not have, and where another user of the source
    would be the same user of the destination.
    """
    if not user_map:
        return users
    addresses = {address_of(user) for user in users}
    _refuse_lines(user_map, user_map.keys() - addresses, "the source has no user of that address")
    unmapped = addresses - user_map.keys()
    taken = {old for old, new in user_map.items() if new.email in unmapped}
    reason = "another user of the source has that address in the destination; map that one too"
    _refuse_lines(user_map, taken, reason)
    return [_mapped(user, user_map) for user in users]


def _mapped(user: Dict[str, Any], user_map: UserMap) -> Dict[str, Any]:
    new = user_map.get(address_of(user))
    return {**user, "email": new.email} if new else user


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
    lines = sorted(user_map[address].line for address in addresses)
    if lines:
        more = f" and {len(lines) - MAX_LINES_SHOWN} more" if len(lines) > MAX_LINES_SHOWN else ""
        shown = ", ".join(map(str, lines[:MAX_LINES_SHOWN]))
        word = "line" if len(lines) == 1 else "lines"
        raise UsageError(f"--user-map, {word} {shown}{more}: {reason}")
