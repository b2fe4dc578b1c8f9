"""The scripts in bin/ as real processes, in a copy of the checkout with a stub as the package."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = sorted(path for path in (ROOT / "bin").iterdir() if path.is_file() and not path.suffix)
# As it was before conftest.py cleaned it: the way to the package index may be in it.
MACHINE = dict(os.environ)

STUB = """\
from __future__ import annotations

import json
import sys
from typing import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    print(json.dumps({"prefix": sys.prefix, "arguments": sys.argv[1:], "module": __file__}))
    return 7
"""

LACKING = "requests, urllib3, python-dotenv"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "a checkout"
    shutil.copytree(ROOT / "bin", folder / "bin", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "README.md").write_text("A stub\n")
    (folder / "bt_migrate" / "phases").mkdir(parents=True)
    (folder / "bt_migrate" / "__init__.py").write_text('"""A stub."""\n\n__version__ = "0.1.0"\n')
    (folder / "bt_migrate" / "phases" / "__init__.py").write_text("")
    (folder / "bt_migrate" / "phases" / "validate.py").write_text(STUB)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_stub.py").write_text("def test_nothing() -> None:\n    pass\n")
    return folder


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter without any package."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True, with_pip=False)
    return folder / "bin" / "python"


@pytest.fixture
def python_without_ensurepip(tmp_path: Path) -> Path:
    """As Debian's without python3-venv."""
    venv.create(tmp_path / "debian", symlinks=True, with_pip=False)
    hide = "import sys; sys.modules['ensurepip'] = None\n"
    (site_packages(tmp_path / "debian") / "hide.pth").write_text(hide)
    return tmp_path / "debian" / "bin" / "python"


@pytest.fixture
def silent_index() -> Iterator[socket.socket]:
    """A package index that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


def site_packages(environment: Path) -> Path:
    return environment / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"


def index_at(port: int) -> dict[str, str]:
    """This environment, with a package index on loopback instead of every other one."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    url = f"http://127.0.0.1:{port}/simple"
    return dict(plain, PIP_INDEX_URL=url, PIP_RETRIES="0", PIP_CONFIG_FILE=os.devnull)


def run(
    *command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def stub_output(prefix: str | Path, checkout: Path, *arguments: str) -> str:
    """What the stub prints when it runs in the environment `prefix`."""
    module = str(checkout / "bt_migrate" / "phases" / "validate.py")
    return (
        json.dumps({"prefix": str(prefix), "arguments": list(arguments), "module": module}) + "\n"
    )


def finish_environment(checkout: Path) -> None:
    """Makes the `.venv` of a finished set-up, with the packages of this interpreter."""
    environment = checkout / ".venv"
    venv.create(environment, symlinks=True, with_pip=False)
    (site_packages(environment) / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (environment / "setup.lock").touch()
    write_marker = (
        "import sys; sys.path.insert(0, 'bin'); import bootstrap; bootstrap.write_marker([])"
    )
    assert run(environment / "bin" / "python", "-c", write_marker, cwd=checkout) == (0, "", "")


# Inside an environment that has the dependencies


@pytest.mark.parametrize("options", [[], ["-I"], ["-B", "-W", "error"]])
def test_an_environment_with_the_dependencies_is_used_as_it_is(
    checkout: Path, options: list[str]
) -> None:
    got = run(sys.executable, *options, checkout / "bin" / "validate", "a", "b c")

    assert got == (7, stub_output(sys.prefix, checkout, "a", "b c"), "")
    assert not (checkout / ".venv").exists()


def test_a_finished_environment_with_progress_bars_goes_before_one_without(
    checkout: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "plain", symlinks=True, with_pip=False)
    packages = site_packages(tmp_path / "plain")
    packages.joinpath("packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    packages.joinpath("hide.pth").write_text("import sys; sys.modules['tqdm'] = None\n")
    command = (tmp_path / "plain" / "bin" / "python", checkout / "bin" / "validate")
    assert run(*command) == (7, stub_output(tmp_path / "plain", checkout), "")
    finish_environment(checkout)
    assert run(*command) == (7, stub_output(checkout / ".venv", checkout), "")


def test_a_script_runs_through_a_symlink_and_from_another_folder(
    checkout: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(checkout / "bin" / "validate")

    assert run(sys.executable, "link", cwd=tmp_path) == (7, stub_output(sys.prefix, checkout), "")


def test_the_checkout_goes_before_another_copy_of_the_package(
    checkout: Path, tmp_path: Path
) -> None:
    (tmp_path / "other" / "bt_migrate").mkdir(parents=True)
    (tmp_path / "other" / "bt_migrate" / "__init__.py").write_text(
        "raise SystemExit('the wrong copy')\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(tmp_path / "other"))

    got = run(sys.executable, checkout / "bin" / "validate", env=environment)

    assert got == (7, stub_output(sys.prefix, checkout), "")


# Where they are missing


def test_a_finished_environment_is_used_without_output(checkout: Path, bare_python: Path) -> None:
    finish_environment(checkout)

    got = run(bare_python, checkout / "bin" / "validate", "--flag", "b c")

    assert got == (7, stub_output(checkout / ".venv", checkout, "--flag", "b c"), "")


def test_variables_of_the_callers_python_do_not_reach_into_the_environment(
    checkout: Path, bare_python: Path, tmp_path: Path
) -> None:
    finish_environment(checkout)
    (tmp_path / "dotenv").mkdir()
    (tmp_path / "dotenv" / "__init__.py").write_text("raise SystemExit('the wrong dotenv')\n")
    module = checkout / "bt_migrate" / "phases" / "validate.py"
    module.write_text(STUB.replace("import sys\n", "import sys\n\nimport dotenv\n"))
    environment = dict(os.environ, PYTHONPATH=str(tmp_path), PYTHONHOME=sys.base_prefix)

    got = run(bare_python, checkout / "bin" / "validate", env=environment)

    assert got == (7, stub_output(checkout / ".venv", checkout), "")


def test_an_environment_made_by_somebody_else_is_not_changed(
    checkout: Path, bare_python: Path
) -> None:
    venv.create(checkout / ".venv", symlinks=True, with_pip=False)
    before = sorted((checkout / ".venv").rglob("*"))

    got = run(bare_python, checkout / "bin" / "validate")

    environment = checkout / ".venv"
    message = (
        f"validate: {environment} was not made by this program and lacks {LACKING}: "
        "install them there, or remove it\n"
    )
    assert got == (2, "", message)
    assert sorted(environment.rglob("*")) == before


def test_a_python_without_ensurepip_ends_with_what_to_install(
    checkout: Path, python_without_ensurepip: Path
) -> None:
    got = run(python_without_ensurepip, checkout / "bin" / "validate")

    message = (
        f"validate: cannot make {checkout / '.venv'}: {python_without_ensurepip} has no "
        "module ensurepip; "
        "install it (Debian, Ubuntu: apt install python3-venv), "
        f"or start this in an environment that has {LACKING}\n"
    )
    assert got == (2, "", message)
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("target", "what"),
    [("", "a file"), ("/gone/.venv", "a link to /gone/.venv, which is not there")],
    ids=["file", "link"],
)
def test_what_is_in_the_place_of_the_environment_is_named_and_stays(
    target: str, what: str, checkout: Path, bare_python: Path
) -> None:
    environment = checkout / ".venv"
    if target:
        environment.symlink_to(target)
    else:
        environment.write_text("in the way")

    got = run(bare_python, checkout / "bin" / "validate")

    message = (
        f"validate: cannot set up {environment}: it is {what}; remove it and start again, "
        f"or start this in an environment that has {LACKING}\n"
    )
    assert (got, os.path.lexists(environment)) == ((2, "", message), True)


def test_without_network_the_set_up_ends_with_exit_code_3_and_counts_as_not_done(
    checkout: Path, bare_python: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed_port = server.getsockname()[1]

    got = run(bare_python, checkout / "bin" / "validate", env=index_at(closed_port))

    environment = checkout / ".venv"
    message = (
        f"validate: setting up {environment} (once; log: {environment / 'setup.log'})\n"
        f"validate: cannot set up {environment}: the package index cannot be reached; "
        "start again with network, or with PIP_INDEX_URL set to a mirror "
        f"(log: {environment / 'setup.log'})\n"
    )
    assert got == (3, "", message)
    assert not (environment / "setup.json").exists()


def test_ctrl_c_during_set_up_is_one_line_and_leaves_no_process(
    checkout: Path, bare_python: Path, silent_index: socket.socket
) -> None:
    program = subprocess.Popen(
        [str(bare_python), str(checkout / "bin" / "validate")],
        env=index_at(silent_index.getsockname()[1]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    try:
        connection, _ = silent_index.accept()
        program.send_signal(signal.SIGINT)
        got = program.communicate(timeout=60)
    finally:
        program.kill()

    environment = checkout / ".venv"
    message = (
        f"validate: setting up {environment} (once; log: {environment / 'setup.log'})\n"
        f"validate: interrupted while setting up {environment}; the next start sets it up again\n"
    )
    assert (program.returncode, *got) == (130, "", message)
    with connection:
        connection.settimeout(60)
        while connection.recv(65536):  # ends when pip has ended
            pass


@pytest.mark.long
def test_the_first_start_installs_from_the_package_index_and_the_tests_pass(
    checkout: Path, bare_python: Path, home: Path
) -> None:
    environment = dict(MACHINE, HOME=str(home))
    folder = checkout / ".venv"
    set_up = f"validate: setting up {folder} (once; log: {folder / 'setup.log'})\n"
    waiting = f"validate: waiting for another program that sets up {folder}\n"
    start = [str(bare_python), str(checkout / "bin" / "validate")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "universal_newlines": True}

    together = [subprocess.Popen(start, env=environment, **pipes) for _ in range(3)]
    said = sorted((*program.communicate(timeout=300), program.returncode) for program in together)
    entered = stub_output(folder, checkout)
    assert said == [(entered, set_up, 7), (entered, waiting, 7), (entered, waiting, 7)]

    with (checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert run(*start, env=environment) == (7, entered, set_up)
    assert run(*start, env=environment) == (7, entered, "")

    exit_code, output, errors = run(bare_python, checkout / "bin" / "test", env=environment)
    version = "{}.{}".format(*sys.version_info[:2])
    assert (exit_code, errors.splitlines()) == (
        0,
        [
            f"test: setting up {folder} (once; log: {folder / 'setup.log'})",
            f"test: ruff check . (Python {version})",
            f"test: ruff format --check . (Python {version})",
            f"test: mypy bt_migrate (Python {version})",
            "test: pytest",
        ],
    )
    assert re.fullmatch(r"=+ 1 passed in [\d.]+s =+", output.splitlines()[-1])
    assert run(*start, env=environment) == (7, entered, "")


@pytest.mark.long
def test_pip_install_puts_the_programs_on_the_path(
    checkout: Path, tmp_path: Path, home: Path
) -> None:
    venv.create(tmp_path / "installed", symlinks=True, with_pip=True)
    programs = tmp_path / "installed" / "bin"

    exit_code, output, errors = run(
        programs / "pip", "install", checkout, env=dict(MACHINE, HOME=str(home))
    )
    assert exit_code == 0, output + errors

    assert {path.name for path in programs.glob("bt-*")} == set(installed_programs())
    exit_code, output, errors = run(programs / "bt-validate", "a")
    assert (exit_code, json.loads(output)["arguments"], errors) == (7, ["a"], "")


# bin/test


def test_the_first_check_that_fails_is_named_and_ends_the_tests(checkout: Path) -> None:
    (checkout / "bt_migrate" / "unused.py").write_text("import os\n")

    exit_code, output, errors = run(sys.executable, checkout / "bin" / "test")

    assert (exit_code, errors.splitlines()) == (
        1,
        [
            "test: ruff check . (Python {}.{})".format(*sys.version_info[:2]),
            "test: ruff check . failed (exit code 1); the rest was not run",
        ],
    )


FAILS_ONCE = """from pathlib import Path


def test_a_test_that_fails_once() -> None:
    mark = Path(__file__).with_name("mark")
    there = mark.exists()
    mark.touch()
    assert there
"""
FAILS = """def test_a_fault() -> None:
    assert not "fault"
"""


@pytest.mark.parametrize(
    ("text", "code", "last_words"),
    [
        (
            FAILS_ONCE,
            0,
            "test: the tests that failed above passed alone: look at them when there is time",
        ),
        (FAILS, 1, "test: pytest, the failed tests alone"),
    ],
    ids=["fails once", "fails"],
)
@pytest.mark.variants(1)
def test_failed_tests_run_alone_once_more_and_decide(
    checkout: Path, text: str, code: int, last_words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(checkout.parent))
    (checkout / "tests" / "test_stub.py").write_text(text)

    exit_code, _, errors = run(sys.executable, checkout / "bin" / "test")

    last_lines = [line for line in errors.splitlines() if "the files of the tests" not in line]
    assert (exit_code, last_lines[-1]) == (code, last_words)


# What is written twice


def installed_programs() -> dict[str, str]:
    """Program on the PATH -> module, from pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    return dict(re.findall(r'^(bt-[\w-]+) = "([\w.]+):main"$', text, re.MULTILINE))


def test_every_script_is_executable_and_an_installed_program_too() -> None:
    scripts = {
        path.name: re.findall(r'bootstrap.run\("([\w.]+)"\)', path.read_text()) for path in PROGRAMS
    }

    assert scripts.pop("test") == []
    assert {f"bt-{name}": modules for name, modules in scripts.items()} == {
        name: [module] for name, module in installed_programs().items()
    }
    assert [path.name for path in PROGRAMS if not os.access(path, os.X_OK)] == []


def test_the_versions_that_are_looked_for_are_the_lower_bounds_of_the_project() -> None:
    print_needed = (
        "import bootstrap, json; print(json.dumps([bootstrap.NEEDED, bootstrap.OPTIONAL]))"
    )
    _, output, _ = run(sys.executable, "-B", "-c", print_needed, cwd=ROOT / "bin")
    needed, optional = json.loads(output)

    text = (ROOT / "pyproject.toml").read_text()
    assert {name: oldest for _, name, oldest in needed[""]} == lower_bounds(text, "dependencies")
    assert {name: oldest for _, name, oldest in needed["test"]} == lower_bounds(text, "test")
    assert re.findall(r'^(?:speed|progress|completion) = \["(.*)"\]', text, re.M) == optional


def lower_bounds(pyproject: str, key: str) -> dict[str, str]:
    block = pyproject.split(f"\n{key} = [\n")[1].split("\n]")[0]
    return dict(re.findall(r'"([\w-]+)>=([\d.]+)', block))


@pytest.mark.parametrize(
    "script", [*PROGRAMS, ROOT / "bin" / "bootstrap.py"], ids=lambda path: path.name
)
def test_a_python_that_is_too_old_can_read_the_scripts(script: Path) -> None:
    """Python 2.7 has none of these: it would show a SyntaxError, not which Python is needed."""
    newer = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.Nonlocal, ast.AsyncFunctionDef)
    nodes = list(ast.walk(ast.parse(script.read_text(encoding="ascii"))))

    assert [ast.dump(node) for node in nodes if isinstance(node, newer)] == []
    for function in (node for node in nodes if isinstance(node, ast.FunctionDef)):
        assert (function.returns, function.args.kwonlyargs, function.args.posonlyargs) == (
            None,
            [],
            [],
        )
        assert [argument.arg for argument in function.args.args if argument.annotation] == []
