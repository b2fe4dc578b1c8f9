"""Random small organizations: objects of most kinds that refer to each other, rows of all kinds."""

from __future__ import annotations

import random
from typing import Any, Dict, List

from tests.support.orgs import BUNDLE, INLINE

Json = Dict[str, Any]

NAMES = ("alpha", "Beta/β", "c d", "logs", "..", "e\u202ef", "organization")
OLD = 1_700_000_000


def fill_random(org: Any, rng: random.Random) -> None:
    """Objects and rows of an organization; the same for the same state of `rng`."""
    users = [user["id"] for user in org.objects("user")]
    if rng.random() < 0.7:
        members = rng.sample(users, rng.randrange(len(users) + 1))
        org.create("group", {"name": "people", "member_users": members})
    if rng.random() < 0.5:
        permissions = [{"permission": rng.choice(["read", "update"])}]
        inner = org.create("role", {"name": "inner", "member_permissions": permissions})["id"]
        org.create("role", {"name": "outer", "member_roles": [inner]})
    if rng.random() < 0.5:
        org.create("ai_secret", {"name": "KEY", "type": "openai", "secret": "never-to-be-read"})
    for name in rng.sample(NAMES, rng.randrange(1, 4)):
        _fill_project(org, rng, name, users)


def _fill_project(org: Any, rng: random.Random, name: str, users: List[str]) -> None:
    project = org.create("project", {"name": name})["id"]
    datasets = [
        org.create("dataset", {"project_id": project, "name": f"d{number}", "tags": ["t"]})["id"]
        for number in range(rng.randrange(3))
    ]
    for dataset in datasets:
        _insert(
            org, rng, "dataset", dataset, [{"expected": rng.random()} for _ in range(_few(rng))]
        )
    functions = _fill_definitions(org, rng, project)
    experiments: List[str] = []
    for number in range(rng.randrange(3)):
        fields: Json = {"project_id": project, "name": f"x{number}", "metadata": {"n": number}}
        if datasets and rng.random() < 0.6:
            fields["dataset_id"] = rng.choice(datasets)
        if experiments and rng.random() < 0.6:
            fields["base_exp_id"] = rng.choice(experiments)
        experiments.append(org.create("experiment", fields)["id"])
        rows = [_span(org, rng, functions, datasets) for _ in range(_few(rng))]
        _insert(org, rng, "experiment", experiments[-1], rows)
    rows = [_span(org, rng, functions, datasets) for _ in range(_few(rng) * 3)]
    _insert(org, rng, "project_logs", project, rows)
    _fill_late(org, rng, project, users, [("dataset", item) for item in datasets])


def _fill_definitions(org: Any, rng: random.Random, project: str) -> List[str]:
    """Ids of prompts and functions."""
    found: List[str] = []
    for number in range(rng.randrange(3)):
        data = BUNDLE if rng.random() < 0.2 else INLINE
        fields = {"name": f"F{number}", "slug": f"f{number}", "function_data": data}
        function = org.create("function", {"project_id": project, **fields})["id"]
        if data is INLINE:
            found.append(function)
    for number in range(rng.randrange(3)):
        data = {"prompt": {"type": "completion", "content": "{{q}}"}}
        if found and rng.random() < 0.5:
            data["tool_functions"] = [{"type": "function", "id": rng.choice(found)}]
        fields = {"name": f"P{number}", "slug": f"p{number}", "prompt_data": data}
        found.append(org.create("prompt", {"project_id": project, **fields})["id"])
    for number in range(rng.randrange(3)):
        org.create("project_tag", {"project_id": project, "name": f"t{number}"})
    return found


def _fill_late(
    org: Any, rng: random.Random, project: str, users: List[str], owners: List[Any]
) -> None:
    for kind, owner in [("project", project), *owners]:
        if rng.random() < 0.5:
            fields: Json = {"object_type": kind, "object_id": owner, "view_type": "logs"}
            if rng.random() < 0.5:
                fields["user_id"] = rng.choice(users)
            org.create("view", {**fields, "name": f"on {kind}"})
        if rng.random() < 0.5:
            subject = {"user_id": rng.choice(users)}
            groups = org.objects("group")
            if groups and rng.random() < 0.7:
                subject = {"group_id": groups[0]["id"]}
            acl = {"object_type": kind, "object_id": owner, "permission": "read", **subject}
            org.create("acl", acl)


def _few(rng: random.Random) -> int:
    return rng.choice([0, 1, 3, 25, 40])


def _span(org: Any, rng: random.Random, functions: List[str], datasets: List[str]) -> Json:
    row: Json = {"input": {"q": rng.random()}, "output": rng.choice([None, "o", [1, 2.0]])}
    if functions and rng.random() < 0.1:
        row["metadata"] = {"prompt": {"id": rng.choice(functions)}}
    if datasets and rng.random() < 0.1:
        origin = {"object_type": "dataset", "object_id": rng.choice(datasets), "id": "r0"}
        row["origin"] = origin
    if rng.random() < 0.05:
        content = str(rng.random()).encode()
        row["input"] = org.attach(content, "a.bin", "application/octet-stream")
    return row


def _insert(org: Any, rng: random.Random, kind: str, holder: str, rows: List[Json]) -> None:
    numbered = [{"id": f"r{number}", **row} for number, row in enumerate(rows)]
    for start in range(0, len(numbered), 10):
        org.insert(kind, holder, numbered[start : start + 10], at=OLD + rng.randrange(1000))
