"""The packages of bt_migrate, what each may import, and what may be committed."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple

import pytest

from tests.support.orgs import TIME_LIMIT_S

PACKAGE = Path(__file__).resolve().parent.parent / "bt_migrate"
NAME = PACKAGE.name

# A package imports only from packages in earlier rows, never from another one of its own row.
ROWS: Tuple[Tuple[str, ...], ...] = (
    ("errors",),
    ("model", "api"),
    ("config",),
    ("state",),
    ("attachments", "report"),
    ("objects",),
    ("rows",),
    ("shards",),
    ("migration",),
    ("verify", "cli", "probe"),
    ("phases",),
)
SANDBOX = "sandbox"
MAY_START_THE_SANDBOX = {"phases.migrate_all"}  # for --demo

# Modules that compute only: no clock, file, socket, environment, thread or random number.
PURE = (
    "errors",
    "model.*",
    "api.btql",
    "api.transactions",
    "api.json_codec",
    "objects.decide",
    "rows.rewrite",
    "rows.batches",
    "shards.share_out",
)
IMPURE = frozenset(
    (
        "os", "io", "socket", "ssl", "select", "time", "random", "secrets", "sqlite3", "requests",
        "urllib3", "http", "urllib", "pathlib", "shutil", "tempfile", "subprocess", "threading",
        "logging", "sys", "signal", "fcntl", "dotenv",
    )
)  # fmt: skip
NOT_FOR_THE_SANDBOX = frozenset(
    ("requests", "urllib3", "dotenv", "orjson", "tqdm", "braintrust", "responses", "pytest")
)


def modules() -> Dict[str, Path]:
    """Returns dotted name inside the package -> file. A package stands for its __init__."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
OURS = {name: path for name, path in MODULES.items() if name.split(".")[0] != SANDBOX}


def is_pure(name: str) -> bool:
    return any(
        name == pattern or (pattern.endswith(".*") and name.startswith(pattern[:-1]))
        for pattern in PURE
    )


PURE_MODULES = [name for name in OURS if is_pure(name)]


def imported(path: Path, package: Tuple[str, ...]) -> Iterator[Tuple[str, str]]:
    """Yields (dotted module, name or "") of each import of a file, in every form and place."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ((".".join(base), alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            literal = node.args and isinstance(node.args[0], ast.Constant)
            if called in ("import_module", "__import__") and literal:
                yield str(node.args[0].value), ""


def imports_of(name: str) -> List[Tuple[str, str]]:
    path = MODULES[name]
    return list(imported(path, (NAME, *path.relative_to(PACKAGE).parts[:-1])))


def module_of(full: str) -> str:
    """The module of ours that a dotted name lies in; "" for the package itself."""
    inside = full.split(".")[1:]
    while inside and ".".join(inside) not in MODULES:
        inside.pop()
    return ".".join(inside)


def ours(name: str) -> Set[str]:
    """The modules of bt_migrate that a module imports."""
    full = (f"{module}.{part}" if part else module for module, part in imports_of(name))
    return {module_of(text) for text in full if text.split(".")[0] == NAME} - {"", name}


def others(name: str) -> Set[str]:
    return {module.split(".")[0] for module, _ in imports_of(name)} - {NAME}


def package_of(name: str) -> str:
    return name.split(".")[0]


def row_of(name: str) -> int:
    return next(number for number, row in enumerate(ROWS) if package_of(name) in row)


def not_allowed(name: str, target: str) -> bool:
    if package_of(target) == SANDBOX:
        return name not in MAY_START_THE_SANDBOX
    return package_of(target) != package_of(name) and row_of(target) >= row_of(name)


def test_imports_are_seen_in_every_form(tmp_path: Path) -> None:
    source = (
        "import a.b, c as d\nfrom e import f\nfrom .g import h\nfrom . import i\n"
        "from .. import j\ndef k():\n    from l import m\n    import_module('n.o')\n"
        "    importlib.import_module('p')\n"
    )
    (tmp_path / "x.py").write_text(source)
    assert sorted(imported(tmp_path / "x.py", ("top", "sub"))) == sorted(
        [
            ("a.b", ""),
            ("c", ""),
            ("e", "f"),
            ("top.sub.g", "h"),
            ("top.sub", "i"),
            ("top", "j"),
            ("l", "m"),
            ("n.o", ""),
            ("p", ""),
        ]
    )


def test_the_rows_name_every_package_and_no_other() -> None:
    found = {package_of(name) for name in OURS} - {""}
    assert sorted(found) == sorted(name for row in ROWS for name in row)


@pytest.mark.parametrize("name", sorted(set(OURS) - {""}))
def test_a_package_imports_only_from_packages_in_earlier_rows(name: str) -> None:
    assert [target for target in ours(name) if not_allowed(name, target)] == []


@pytest.mark.parametrize("name", sorted(set(MODULES) - {""}))
def test_no_private_name_is_imported_from_another_package(name: str) -> None:
    foreign = [
        f"{module}.{part}"
        for module, part in imports_of(name)
        if module.split(".")[0] == NAME
        and part.startswith("_")
        and not part.startswith("__")
        and module.split(".")[1:2] != [package_of(name)]
    ]
    assert foreign == []


def circle(graph: Dict[str, Set[str]]) -> List[str]:
    """Returns modules that cannot be put in an order, [] where there is no circle."""
    left = dict(graph)
    while True:
        free = [name for name, targets in left.items() if not targets & set(left)]
        if not free:
            return sorted(left)
        for name in free:
            del left[name]


def test_no_modules_import_each_other_in_a_circle() -> None:
    at_import = {name: ours(name) - {name} for name in MODULES}
    # A package's __init__ and the modules in it are separate files; __main__ starts the package.
    assert circle({name: targets & set(MODULES) for name, targets in at_import.items()}) == []


@pytest.mark.parametrize("name", [name for name in sorted(OURS) if name.startswith("phases.")])
def test_a_phase_imports_no_other_phase(name: str) -> None:
    assert {target for target in ours(name) if package_of(target) == "phases"} <= {"phases"}


def test_the_order_of_the_phases_imports_none_of_them() -> None:
    assert ours("phases") == set()


def test_only_undo_deletes_objects_and_only_undo_sync_and_replay_delete_rows() -> None:
    texts = {name: path.read_text(encoding="utf-8") for name, path in OURS.items()}
    # `rights` deletes the nameless project that a server made of its request.
    deleting = [name for name, text in texts.items() if "dest.delete(" in text]
    assert deleting == ["migration.rights", "migration.undo"]
    assert [name for name, text in texts.items() if "_object_delete" in text] == ["rows.insert"]
    users = [name for name in OURS if ("bt_migrate.rows.insert", "delete_rows") in imports_of(name)]
    assert sorted(users) == [
        "migration.undo_rows",
        "probe.row_checks",
        "rows.deletes",
        "rows.replay",
    ]


def test_only_the_demo_starts_the_sandbox() -> None:
    users = {name for name in OURS if any(package_of(target) == SANDBOX for target in ours(name))}
    assert users == MAY_START_THE_SANDBOX


@pytest.mark.parametrize("name", [name for name in sorted(MODULES) if package_of(name) == SANDBOX])
def test_the_sandbox_uses_the_standard_library_only(name: str) -> None:
    foreign = {target for target in ours(name) if package_of(target) != SANDBOX}
    assert (foreign, others(name) & NOT_FOR_THE_SANDBOX) == (set(), set())


@pytest.mark.parametrize("pattern", PURE)
def test_a_pattern_of_pure_modules_matches_a_module(pattern: str) -> None:
    assert [name for name in OURS if name.startswith(pattern.rstrip("*"))]


@pytest.mark.parametrize("name", PURE_MODULES)
def test_a_pure_module_uses_no_clock_file_socket_environment_or_random(name: str) -> None:
    tree = ast.parse(OURS[name].read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert (
        others(name) & IMPURE,
        names & {"open", "print", "input"},
        attributes & {"now", "utcnow", "today", "environ"},
    ) == (set(), set(), set())


IMPORT_ALONE = """
import gc, importlib, sys
before = sys.getrecursionlimit(), gc.get_threshold(), getattr(sys, "get_int_max_str_digits", int)()
for name in sys.argv[1:]:
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == "bt_migrate"]:
        del sys.modules[loaded]
    importlib.import_module(name)
    sandbox = [loaded for loaded in sys.modules if loaded.startswith("bt_migrate.sandbox")]
    if sandbox and not name.startswith("bt_migrate.sandbox"):
        print(name, "loads", *sandbox)
    digits = getattr(sys, "get_int_max_str_digits", int)()
    after = sys.getrecursionlimit(), gc.get_threshold(), digits
    if after != before:
        print(name, "changes", before, "to", after)
        before = after
"""


def test_each_module_imports_alone_and_without_effects() -> None:
    names = [
        f"{NAME}.{name}" if name else NAME for name in MODULES if not name.endswith("__main__")
    ]
    command: List[str] = [sys.executable, "-c", IMPORT_ALONE, *names]
    done = subprocess.run(
        command, cwd=str(PACKAGE.parent), capture_output=True, text=True, timeout=TIME_LIMIT_S
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def committed() -> List[Tuple[str, Path]]:
    """Returns (mode, file) of each file that git tracks."""
    root = PACKAGE.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a git checkout")
    lines = subprocess.check_output(["git", "ls-files", "-sz"], cwd=str(root), text=True)
    entries = [line.partition("\t") for line in lines.split("\0") if line]
    return [(facts.split()[0], root / name) for facts, _, name in entries]


def test_no_link_and_no_path_of_a_machine_is_committed() -> None:
    """A link into the folders of one machine leads nowhere in a clone on another one.

    Where links are not supported, git makes of a link a file whose content is its target.
    """
    links = [path.name for mode, path in committed() if mode == "120000"]
    paths = [
        path.name
        for _, path in committed()
        if path.is_file() and re.fullmatch(rb"(/|~/|[A-Za-z]:\\)\S+\s*", path.read_bytes()[:4096])
    ]
    assert (links, paths) == ([], [])


@pytest.mark.parametrize("name", ("status", "report", "accept", "control", "migrate_all"))
def test_a_program_loads_the_http_client_only_when_it_needs_one(name: str) -> None:
    code = f"import bt_migrate.phases.{name}, sys; print('requests' in sys.modules)"
    command: List[str] = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=str(PACKAGE.parent), capture_output=True, text=True, timeout=TIME_LIMIT_S
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
