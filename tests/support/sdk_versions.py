"""Reads datasets at versions with the official `braintrust` SDK, and prints what it sees as JSON.

Arguments: a JSON list of [project, dataset, version or null], and the file to write to.
"""

from __future__ import annotations

import json
import sys
from typing import Any, List, Optional

import braintrust


def rows_at(project: str, name: str, version: Optional[str]) -> List[Any]:
    """The rows. Without a version, the SDK is also shown former versions of rows."""
    dataset = braintrust.init_dataset(project=project, name=name, version=version)
    by_age = sorted(dataset, key=lambda row: str(row["_xact_id"]))
    newest = {row["id"]: [row["input"], row["expected"], row["tags"]] for row in by_age}
    return sorted([row_id, *values] for row_id, values in newest.items())


if __name__ == "__main__":
    found = [rows_at(*asked) for asked in json.loads(sys.argv[1])]
    with open(sys.argv[2], "w") as file:
        json.dump(found, file)
