"""Move, then compare: programs in this process, and the differences that they report."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import time
from pathlib import Path
from typing import Any, Dict, Set, Tuple

import pytest

from bt_migrate.sandbox.data import inserts as inserts
from tests.support.orgs import Pair, environment

Json = Dict[str, Any]


def program(name: str, pair: Pair, root: Path, *args: str, **settings: str) -> Tuple[int, str]:
    """Run a program in this process: its exit code and what it printed."""
    root.parent.mkdir(parents=True, exist_ok=True)
    values = environment(pair.sandbox, LOG_LEVEL="ERROR", MIGRATION_VERIFY_WAIT="0")
    values.update(settings)
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.chdir(root.parent)
        for key, value in values.items():
            patch.setenv(key, value)
        code = importlib.import_module(f"bt_migrate.phases.{name}").main(
            ["--state-dir", str(root), *args]
        )
    return int(code), out.getvalue()


def moved(pair: Pair, root: Path, *args: str, **settings: str) -> None:
    assert program("migrate_all", pair, root, "--no-verify", *args, **settings)[0] == 0


def verified(pair: Pair, root: Path, *args: str, **settings: str) -> Tuple[int, Json]:
    code, out = program("verify", pair, root, *args, "--json", **settings)
    return code, json.loads(out)


def told(result: Json) -> Set[Tuple[Any, ...]]:
    return {
        (
            difference["outcome"],
            difference["resource"],
            difference["name"],
            difference.get("row"),
            difference.get("changed_since_copy", False),
        )
        for difference in result["differences"]
    }


def object_id(org: Any, kind: str, name: str) -> str:
    return str(next(obj["id"] for obj in org.objects(kind) if obj["name"] == name))


def later() -> int:
    """A moment after everything that was done so far, whatever the second."""
    return int(time.time()) + 60
