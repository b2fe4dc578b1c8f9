"""Each optional field of each kind, refused by a destination that is older, and then upgraded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

import pytest

from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import OBJECT_RESOURCES
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.example import fill as example
from tests.support.orgs import DEST_KEY, WatchedSandbox, example_pair, findings, report, run

# An older sandbox does not have some of the fields that are refused here.
pytestmark = pytest.mark.recorded

# Never left out: without it the object would be another one, or grant or do something else.
KEPT = {
    "dataset_snapshots": ["xact_id"],
    "project_automations": ["config"],
    "org_automations": ["config"],
    # sent with --history and --keep-public only
    "experiments": ["parameters_version", "public"],
    # written by requests with other names: add_member_projects
    "project_groups": ["member_projects"],
}
# Without optional fields of this sort, or with a test of their own.
NONE = ("acls", "environment_assignments", "project_settings")


def optional(resource: Resource) -> List[str]:
    """The fields without which the API accepts an object of the kind."""
    required = {*resource.key, *resource.patch_required, *KINDS[resource.kind].required}
    required.update(KEPT.get(resource.name, ()))
    names = dict.fromkeys((*resource.create, *resource.patch))
    moved_elsewhere = ("settings",) if resource.name == "projects" else ()
    return [name for name in names if name not in required and name not in moved_elsewhere]


FIELDS = {
    resource.name: optional(resource) for resource in OBJECT_RESOURCES if resource.name not in NONE
}
PATHS = {
    resource.name: re.compile(
        re.escape(resource.path).replace(re.escape("{project_id}"), "[^/]+") + r"(/[^/?]+)?(\?|$)"
    )
    for resource in OBJECT_RESOURCES
    if not resource.part_of
}


class Older:
    """A data plane that does not know one field of each kind, until its upgrade."""

    def __init__(self, unknown: Dict[str, str]) -> None:
        self.unknown = unknown
        self.refused: Set[Tuple[str, str]] = set()
        self.knows = False

    def __call__(self, method: str, path: str, raw: bytes) -> Optional[Answer]:
        if self.knows or method not in ("POST", "PUT", "PATCH") or not raw.startswith(b"{"):
            return None
        for kind, field in self.unknown.items():
            if PATHS[kind].match(path) and field in json.loads(raw):
                self.refused.add((kind, field))
                return Answer(400, f"Extraneous key '{field}' at path []".encode(), "text/plain")
        return None


def told(root: Path) -> Set[Tuple[str, str]]:
    return {(item["resource"], item["path"]) for item in findings(root, "field_not_taken")}


@pytest.mark.long
@pytest.mark.parametrize("number", range(max(map(len, FIELDS.values()))))
def test_any_field_may_be_unknown_and_is_added_after_an_upgrade(
    number: int, tmp_path: Path
) -> None:
    unknown = {kind: names[number] for kind, names in FIELDS.items() if number < len(names)}
    older = Older(unknown)
    root = tmp_path / "runs"
    with example_pair(rows=60) as pair, WatchedSandbox() as other:
        other.add_org("globex", api_key=DEST_KEY, users=example.DEST_USERS)
        other.refuse = older
        for view in pair.source.objects("view"):
            if view["object_type"] == "project":
                owner = {name: view[name] for name in ("object_type", "object_id")}
                more = {"description": "d", "starred": True}
                pair.source.patch("view", view["id"], {**owner, **more})
        arguments: Dict[str, Any] = {"BT_DEST_URL": other.url}
        done = run(pair.sandbox, root, "--verify", **arguments)
        assert (done.code, told(root)) == (0, older.refused), done.out
        assert older.refused
        done = run(pair.sandbox, root, "--verify", **arguments)
        # Members that a POST does not take are added by a PATCH.
        rest = {(kind, name) for kind, name in older.refused if not name.startswith("member_")}
        assert (done.code, told(root)) == (0, rest), done.out
        older.knows = True
        done = run(pair.sandbox, root, "--verify", **arguments)
        assert (done.code, told(root)) == (0, set()), done.out
        assert report(root)["verification"]["equal"]
