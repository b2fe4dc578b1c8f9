"""An organization in which everything names three users who are not in the destination."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Iterator, List, Sequence

from tests.support.orgs import ANA, DEST_KEY, SOURCE_KEY, Pair, WatchedSandbox, findings

CLEO, DAN, EVA = "cleo@acme.example", "dan@acme.example", "eva@acme.example"
MISSING = (CLEO, DAN, EVA)
ASSIGNED = "~__bt_assignments"


@contextlib.contextmanager
def people_pair() -> Iterator[Pair]:
    """An organization in which everything names three users who are not in the destination."""
    with WatchedSandbox() as sandbox:
        sandbox.behaviour.views_belong_to_caller = True
        members = [{"email": email} for email in (ANA, *MISSING)]
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=members)
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=[{"email": ANA}])
        _fill(source)
        yield Pair(sandbox, source, dest)


def _fill(org: Any) -> None:
    ana, cleo, dan, eva = (user_id(org, email) for email in (ANA, *MISSING))
    alpha = org.create("project", {"name": "alpha"})["id"]
    org.create("project_tag", {"project_id": alpha, "name": "red"})
    org.create("group", {"name": "people", "member_users": [cleo, ana, dan]})
    shown = {"visibility": {"users": [cleo, dan, ana], "groups": []}}
    score = {"project_id": alpha, "name": "Rating", "score_type": "slider", "config": shown}
    org.create("project_score", score)
    dataset = org.create("dataset", {"project_id": alpha, "name": "cases"})["id"]
    experiment = org.create("experiment", {"project_id": alpha, "name": "first"})["id"]
    owner = {"object_type": "project", "object_id": alpha}
    org.create("view", {**owner, "view_type": "logs", "name": "of Cleo", "user_id": cleo})
    org.create("acl", {**owner, "user_id": dan, "permission": "read"})
    org.create("acl", {**owner, "user_id": eva, "permission": "update"})
    lists = [[cleo, ana, dan], [eva], [ana], [dan, eva, cleo]]
    rows = [
        {"id": f"r{number}", "input": number, "metadata": {ASSIGNED: users, "kept": [number]}}
        for number, users in enumerate(lists)
    ]
    for kind, object_id in (
        ("project_logs", alpha),
        ("dataset", dataset),
        ("experiment", experiment),
    ):
        org.insert(kind, object_id, rows)


def user_id(org: Any, email: str) -> str:
    return str(next(obj["id"] for obj in org.objects("user") if obj["email"] == email))


def invite(pair: Pair, emails: Sequence[str]) -> None:
    store = pair.sandbox.store
    with store.lock:
        for email in emails:
            store.add_user(store.orgs[pair.dest.id], {"email": email})


def missing_users(root: Path) -> List[str]:
    """The users of whom the report says that they are missing, each once."""
    found = findings(root, "user_without_counterpart")
    return sorted({str(item.get("detail") or item["name"]).split(" ")[0] for item in found})
