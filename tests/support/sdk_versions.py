"""Reads datasets at versions with the official `braintrust` SDK, and prints what it sees as JSON.

Arguments: a JSON list of [project, dataset, version], and the file to write to.
"""

from __future__ import annotations

import json
import sys
from typing import Any, List

import braintrust


def rows_at(project: str, name: str, version: str) -> List[Any]:
    dataset = braintrust.init_dataset(project=project, name=name, version=version)
    return sorted([row["id"], row["input"], row["expected"], row["tags"]] for row in dataset)


if __name__ == "__main__":
    found = [rows_at(*asked) for asked in json.loads(sys.argv[1])]
    with open(sys.argv[2], "w") as file:
        json.dump(found, file)
