"""The plan of a dry run."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.orgs import Json, Pair, run


def planned(pair: Pair, folder: Path, *args: str, code: int = 0, **settings: str) -> Json:
    """The plan of a dry run, which writes nothing."""
    pair.sandbox.clear_requests()
    done = run(
        pair.sandbox,
        folder / "dry",
        "--dry-run",
        "--plan-out",
        str(folder / "plan.json"),
        *args,
        **settings,
    )
    assert (done.code, pair.sandbox.writes("globex")) == (code, []), done.last_words
    value: Json = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    return value
