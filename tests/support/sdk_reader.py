"""Reads an organization with the official `braintrust` SDK, and prints what it sees as JSON.

What is known from filling it is read from a file; nothing of bt_migrate is used.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Dict, List

import braintrust


def dataset_rows() -> List[Any]:
    dataset = braintrust.init_dataset(project="Alpha", name="Questions")
    return sorted(
        [row["id"], row["input"], row["expected"], row["metadata"], row["tags"]]
        for row in dataset.fetch(batch_size=2)
    )


def experiment_rows(name: str) -> List[Any]:
    """A row that was sent in two requests is read as two versions, the newest first."""
    opened = braintrust.init(project="Alpha", experiment=name, open=True)
    newest: Dict[str, Any] = {}
    for row in opened:
        newest.setdefault(row["id"], row)
    names = ("id", "input", "output", "scores", "span_id", "created")
    return sorted([row[name] for name in names] for row in newest.values())


def prompt() -> Dict[str, Any]:
    loaded = braintrust.load_prompt(project="Alpha", slug="greet")
    built = loaded.build(name="Bob")
    return {"model": built["model"], "messages": built["messages"]}


def versions(wanted: List[Dict[str, str]]) -> List[Any]:
    """The prompt in each of the wanted versions and environments."""
    return [
        [built["model"], built["messages"]]
        for pin in wanted
        for built in [
            braintrust.load_prompt(project="Alpha", slug="greet", **pin).build(name="Bob")
        ]
    ]


def attachment(reference: Dict[str, Any]) -> str:
    return braintrust.ReadonlyAttachment(reference).data.decode()


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        reference, wanted = json.load(file)
    found = {
        "dataset": dataset_rows(),
        "by hand": experiment_rows("by hand"),
        "prompt": prompt(),
        "versions": versions(wanted),
        "attachment": attachment(reference) if reference else None,
    }
    with open(sys.argv[2], "w") as file:
        json.dump(found, file)
