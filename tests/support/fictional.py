"""Three fictional kinds of objects, one of each scope, as rows of the table and sandbox schemas.

Run as a program, `python -m tests.support.fictional PHASE [arguments]`, it starts a phase of the
migration with these rows in its table. The rows are added before anything else is imported.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace

import bt_migrate.model.resource_table as table
from bt_migrate.model.resource import (
    BY_OWNER,
    BY_PROJECT,
    ORGANIZATION,
    OWNER,
    PROJECT,
    Reference,
    Resource,
)

POLICIES = Resource(
    "policies", "policy", "/v1/policy", ORGANIZATION, ("name",),
    create=("name", "text"), patch=("name", "text"), phase="migrate-organization", page="None",
)  # fmt: skip
QUERIES = Resource(
    "fictional_queries", "fictional_query", "/v1/fictional_query", PROJECT, ("name",),
    create=("name", "query", "dataset_id"), patch=("name", "query", "dataset_id"),
    references=(Reference("dataset_id", ("datasets",)),),
    phase="migrate-definitions", listed=BY_PROJECT, page="None",
)  # fmt: skip
STICKERS = Resource(
    "stickers", "sticker", "/v1/sticker", OWNER, ("object_type", "object_id", "name"),
    create=("object_type", "object_id", "name", "text"), patch=("name", "text"),
    references=(Reference("object_id", ("@object_type",)),),
    phase="migrate-views", listed=BY_OWNER, owner_types=("project", "dataset"), page="None",
)  # fmt: skip
FICTIONAL = (POLICIES, QUERIES, STICKERS)


def add_to_sandbox() -> None:
    """Add the three kinds to the sandbox. Call it before a sandbox is created."""
    from bt_migrate.sandbox.data.schema import KINDS

    KINDS["policy"] = replace(
        KINDS["environment"], name="policy", path="/v1/policy", store="policy",
        create={"name": "name", "text": "text", "org_name": "text"}, required=frozenset(["name"]),
        patch={"name": "name", "text": "text"}, unique=(("org_id", "name"),),
    )  # fmt: skip
    fields = {"name": "name", "query": "text", "dataset_id": "id"}
    KINDS["fictional_query"] = replace(
        KINDS["dataset"],
        name="fictional_query",
        path="/v1/fictional_query",
        store="fictional_query",
        create={"project_id": "id", **fields},
        patch=fields,
        read_only=("created",),
        links=(("project_id", "project"), ("dataset_id", "dataset")),
    )
    fields = {"name": "name", "text": "text"}
    KINDS["sticker"] = replace(
        KINDS["acl"], name="sticker", path="/v1/sticker", store="sticker",
        create={"object_type": "object_type", "object_id": "id", **fields}, patch=fields,
        required=frozenset(["object_type", "object_id", "name"]), read_only=("created",),
        unique=(("object_type", "object_id", "name"),), filters=("object_type", "object_id"),
        links=(("object_id", "@object_type"),),
    )  # fmt: skip


def remove_from_sandbox() -> None:
    from bt_migrate.sandbox.data.schema import KINDS

    for resource in FICTIONAL:
        KINDS.pop(resource.kind, None)


def main() -> int:
    table.OBJECT_RESOURCES = (*table.OBJECT_RESOURCES, *FICTIONAL)
    phase = importlib.import_module(f"bt_migrate.phases.{sys.argv[1]}")
    return int(phase.main(sys.argv[2:]))


if __name__ == "__main__":
    raise SystemExit(main())
