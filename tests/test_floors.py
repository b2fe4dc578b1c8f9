"""The floors of the building: a module imports only from below itself. The table is the whole truth about that."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "bt_migrate"
NAME = PACKAGE.name

# A module may import those of lower floors, and on its own floor those that stand before it.
FLOORS: Tuple[Tuple[str, ...], ...] = (
    ("errors", "resources"),
    ("keys", "windows", "canonical", "findings", "btql", "json_text", "batches", "references", "rows", "planning", "shards"),
    ("settings", "throttle", "web", "api", "meter", "state", "seen", "history", "runs", "rounds"),
    (
        "catalog", "attachments", "outgoing", "row_streams", "slices", "read_rows", "read_ahead", "choose_rows", "owned_objects",
        "prepare_objects", "update_objects", "copy_objects",
        "deferred_objects", "insert_rows", "tail", "copy_rows", "deferred_rows", "row_plan", "losses", "comparable", "compare", "compare_counts",
        "compare_rows", "sync_deletes", "work", "validation", "verification", "undo", "lag", "plan_shards", "merge_runs",
    ),
    ("options", "progress", "report", "plan", "endings", "operating", "run_status", "program"),
    ("phases",),
)  # fmt: skip
PURE_FLOORS = (0, 1)
APART_ON_THEIR_FLOOR = {("settings", "api"), ("state", "api")}  # the edges: state knows settings, nothing else knows another

IMPURE = frozenset(
    (
        "os", "io", "socket", "ssl", "select", "time", "random", "secrets", "sqlite3", "requests", "urllib3", "http", "urllib", "pathlib",
        "shutil", "tempfile", "subprocess", "threading", "logging", "sys", "signal", "fcntl", "dotenv",
    )
)  # fmt: skip
SANDBOX = "sandbox"
MAY_START_THE_SANDBOX = {"phases.migrate_all"}  # for --demo
STDLIB_ONLY_OF_SANDBOX = frozenset(("requests", "urllib3", "dotenv", "orjson", "tqdm", "braintrust", "responses", "pytest"))


def modules() -> Dict[str, Path]:
    """Dotted name inside the package -> file; a package stands for its __init__."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
OURS = {name: path for name, path in MODULES.items() if name.split(".")[0] != SANDBOX}


def imported(path: Path, package: Tuple[str, ...]) -> Iterator[str]:
    """Full dotted names of all that a file imports, wherever in it, relative imports and import_module(\"literal\") too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)


def imports_of(name: str) -> Set[str]:
    """All that a module imports; what is ours without the name of the package in front, cut to the module."""
    path = MODULES[name]
    package = (NAME, *path.relative_to(PACKAGE).parts[:-1])
    found = set()
    for full in imported(path, package):
        parts = full.split(".")
        if parts[0] != NAME:
            found.add(full)
            continue
        inside = parts[1:]
        while inside and ".".join(inside) not in MODULES:
            inside.pop()  # a name inside a module
        found.add(f"{NAME}:{'.'.join(inside)}")
    return found


def ours(name: str) -> Set[str]:
    """The modules of this package that a module imports; the package itself holds only the version."""
    return {one.split(":")[1] for one in imports_of(name) if one.startswith(NAME + ":")} - {"", name}


def others(name: str) -> Set[str]:
    return {one.split(".")[0] for one in imports_of(name) if not one.startswith(NAME + ":")}


def place(name: str) -> Tuple[int, int]:
    """(floor, position on it) of a module."""
    first = name.split(".")[0]
    return next((floor, row.index(first)) for floor, row in enumerate(FLOORS) if first in row)


# (sentinels of the reader of imports: a test that sees nothing would pass for ever)


def test_imports_are_seen_in_every_form(tmp_path: Path) -> None:
    source = (
        "import a.b, c as d\nfrom e import f\nfrom .g import h\nfrom . import i\nfrom .. import j\n"
        "def k():\n    from l import m\n    import_module('n.o')\n    importlib.import_module('p')\n"
    )
    (tmp_path / "x.py").write_text(source)
    assert sorted(imported(tmp_path / "x.py", ("top", "sub"))) == sorted(
        ["a.b", "c", "e.f", "top.sub.g.h", "top.sub.i", "top.j", "l.m", "n.o", "p"]
    )


def test_the_table_holds_every_module_and_no_other() -> None:
    found = {name.split(".")[0] for name in OURS} - {""}
    assert sorted(found) == sorted(name for floor in FLOORS for name in floor)


@pytest.mark.parametrize("name", sorted(set(OURS) - {""}))
def test_a_module_imports_only_from_below(name: str) -> None:
    allowed_sandbox = {one for one in ours(name) if one.split(".")[0] == SANDBOX and name in MAY_START_THE_SANDBOX}
    same_package = {one for one in ours(name) if name.startswith("phases") and one.split(".")[0] == "phases"}
    above = [one for one in ours(name) - allowed_sandbox - same_package if one.startswith(SANDBOX) or place(one) >= place(name)]
    assert above == []


def test_the_edges_know_nothing_of_each_other() -> None:
    assert [pair for pair in APART_ON_THEIR_FLOOR if pair[1] in ours(pair[0]) or pair[0] in ours(pair[1])] == []


@pytest.mark.parametrize("name", [one for one in sorted(OURS) if one.startswith("phases.")])
def test_phases_know_their_order_and_never_each_other(name: str) -> None:
    assert {one for one in ours(name) if one.split(".")[0] == "phases"} - {"phases"} == set()


def test_the_order_of_the_phases_knows_no_module_of_its_own() -> None:
    assert ours("phases") == set()


def test_only_the_undo_deletes_objects_and_only_it_and_a_sync_rows() -> None:
    calls = {name: OURS[name].read_text(encoding="utf-8") for name in OURS}
    assert [name for name, text in calls.items() if "dest.delete(" in text] == ["undo"]
    assert [name for name, text in calls.items() if "_object_delete" in text] == ["sync_deletes"]
    assert [name for name, text in calls.items() if "import delete_rows" in text] == ["undo"]


def test_only_the_demo_starts_the_sandbox() -> None:
    assert {name for name in OURS if any(one.split(".")[0] == SANDBOX for one in ours(name))} == MAY_START_THE_SANDBOX


def test_only_a_demo_that_is_asked_for_loads_the_sandbox() -> None:
    path = OURS["phases.migrate_all"]
    at_import = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [ast.dump(node) for node in at_import if SANDBOX in ast.dump(node)] == []


@pytest.mark.parametrize("name", [one for one in sorted(MODULES) if one.split(".")[0] == SANDBOX])
def test_the_sandbox_is_an_independent_judge_of_the_standard_library_only(name: str) -> None:
    assert (
        {one for one in ours(name) if one.split(".")[0] != SANDBOX},
        others(name) & STDLIB_ONLY_OF_SANDBOX,
    ) == (set(), set())


@pytest.mark.parametrize("name", [name for floor in PURE_FLOORS for name in FLOORS[floor]])
def test_a_pure_module_knows_no_files_sockets_clock_environment_or_chance(name: str) -> None:
    assert others(name) & IMPURE == set()


@pytest.mark.parametrize("name", [name for floor in PURE_FLOORS for name in FLOORS[floor]])
def test_a_pure_module_asks_no_clock_and_opens_no_file(name: str) -> None:
    tree = ast.parse(OURS[name].read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert (names & {"open", "print", "input"}, attributes & {"now", "utcnow", "today", "environ"}) == (set(), set())


IMPORT_ALONE = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [one for one in sys.modules if one.split(".")[0] == "bt_migrate"]:
        del sys.modules[loaded]
    importlib.import_module(name)
    extra = sorted(one for one in sys.modules if one.startswith("bt_migrate.sandbox")) if not name.startswith("bt_migrate.sandbox") else []
    if extra:
        print(name, "loads", *extra)
"""


def test_every_module_imports_alone_and_in_silence() -> None:
    names = [NAME if not name else f"{NAME}.{name}" for name in MODULES if not name.endswith("__main__")]
    command: List[str] = [sys.executable, "-c", IMPORT_ALONE, *names]
    done = subprocess.run(command, cwd=str(PACKAGE.parent), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
