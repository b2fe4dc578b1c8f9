"""Starts a program of this checkout in an interpreter that has what the program needs.

Owns `.venv` beside `bin/`. Knows nothing of bt_migrate: a program is a module with a `main`.

Any Python can read this file, so that an old one says that it is too old instead of showing a
SyntaxError: no annotations, f-strings or keyword-only parameters, here and in the scripts.
"""

import sys

if sys.version_info < (3, 8):
    sys.stderr.write(
        "{}: needs Python 3.8 or later, this is {}.{}.{} ({})\n".format(
            *((sys.argv[0],) + tuple(sys.version_info[:3]) + (sys.executable,))
        )
    )
    sys.exit(2)

import errno
import gc
import hashlib
import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
from importlib import metadata

EXIT_SETTINGS = 2
EXIT_NETWORK = 3
EXIT_INTERRUPTED = 130

BIN = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(BIN)
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
PYPROJECT = os.path.join(ROOT, "pyproject.toml")
LOG = os.path.join(VENV, "setup.log")  # what venv and pip said
LOCK = os.path.join(VENV, "setup.lock")  # its presence says that this module made .venv
MARKER = os.path.join(VENV, "setup.json")  # written last: a set-up without it was interrupted

# extra -> (module, distribution, oldest version); the versions are those of pyproject.toml
NEEDED = {
    "": (
        ("requests", "requests", "2.28.0"),
        ("urllib3", "urllib3", "1.26.12"),
        ("dotenv", "python-dotenv", "0.21.0"),
    ),
    "test": (
        ("pytest", "pytest", "8.3.5"),
        ("xdist", "pytest-xdist", "3.6.1"),
        ("responses", "responses", "0.26.0"),
        ("jsonschema", "jsonschema", "4.17.3"),
        ("ruff", "ruff", "0.17.0"),
        ("mypy", "mypy", "1.14.1"),
        ("requests-stubs", "types-requests", "2.32.0.20241016"),
        ("tqdm", "tqdm", "4.66.0"),
        ("braintrust", "braintrust", "0.3.14"),
    ),
}

# Extras that every program works without: installed where there is a wheel.
OPTIONAL = ("orjson>=3.10.0", "tqdm>=4.66.0", "argcomplete>=3.1.0")

# Set for the caller's interpreter or pip, these would reach into .venv or install outside of it.
FOREIGN_VARIABLES = (
    "PYTHONPATH",
    "PYTHONHOME",
    "__PYVENV_LAUNCHER__",  # macOS: the interpreter to be, instead of that of .venv
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
)

# What pip writes when it cannot reach the index; the last is all it says if it may not retry.
NETWORK_SIGNS = (
    "connection broken by",
    "Max retries exceeded",
    "NewConnectionError",
    "Read timed out",
    "ReadTimeoutError",
    "(from versions: none)",
)


def run(module):
    """Ends this process with what `main` of `module` returns."""
    enter()
    # Loading the modules makes many objects and no garbage: with the default thresholds the
    # collector takes a tenth of the start. cli/program sets the thresholds for the work itself.
    gc.set_threshold(100000, 20, 100)
    sys.path[:] = [ROOT] + [entry for entry in sys.path if os.path.realpath(entry) != BIN]
    try:
        sys.exit(importlib.import_module(module).main())
    except KeyboardInterrupt:
        fail("interrupted", EXIT_INTERRUPTED)


def enter(extra=""):
    """Returns only if everything for `extra` is there: else the program starts again in `.venv`.

    So it does where a finished `.venv` has more, such as progress bars and completions.
    """
    lacking = missing(extra)
    if not lacking and not venv_has_more(extra):
        return
    if "_ARGCOMPLETE" in os.environ and not os.path.exists(MARKER):
        sys.exit(1)  # a shell asks for completions: it must not wait for a set-up
    if os.name != "posix":
        fail(
            "sets itself up on Linux and macOS only; here use pip install {}".format(ROOT),
            EXIT_SETTINGS,
        )
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # pip must not outlive a set-up that is ended
    try:
        prepare(extra, lacking)
        script = os.path.abspath(sys.argv[0])
        os.execve(VENV_PYTHON, [VENV_PYTHON, script] + sys.argv[1:], clean_environment())
    except KeyboardInterrupt:
        fail(
            "interrupted while setting up {}; the next start sets it up again".format(VENV),
            EXIT_INTERRUPTED,
        )
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        fail(
            "cannot set up {}: {}: {}; {}, or start this in an environment that has {}".format(
                VENV,
                error.strerror or error,
                error.filename or VENV,
                "make it writable" if denied else "put that right",
                ", ".join(lacking),
            ),
            EXIT_SETTINGS,
        )


def missing(extra):
    """The distributions that this interpreter lacks, or has too old."""
    needed = NEEDED[""] + (NEEDED[extra] if extra else ())
    return [name for module, name, oldest in needed if not has(module, name, oldest)]


def venv_has_more(extra):
    """Is `.venv` finished, and does this other interpreter lack what it was also given?"""
    if os.path.realpath(sys.prefix) == os.path.realpath(VENV) or not os.path.exists(MARKER):
        return False
    optional = [distribution.split(">=") for distribution in OPTIONAL]
    if all(has(name, name, oldest) for name, oldest in optional):
        return False
    return fits(read_marker(), extra)


def has(module, distribution, oldest):
    try:
        found = metadata.version(distribution) or "0"
    except metadata.PackageNotFoundError:
        return False
    return importlib.util.find_spec(module) is not None and numbers(found) >= numbers(oldest)


def numbers(version):
    return [int(digits) for digits in re.findall(r"\d+", version)]


def prepare(extra, lacking):
    """Makes a `.venv` that fits; one process at a time works on it, the others wait."""
    inside = os.path.realpath(sys.prefix) == os.path.realpath(VENV)
    made_here = os.path.exists(LOCK)
    if os.path.exists(VENV_PYTHON) and not made_here:
        # Somebody's own environment: used as it is, never changed.
        if inside:
            fail(
                "{} was not made by this program and lacks {}: install them there,"
                " or remove it".format(VENV, ", ".join(lacking)),
                EXIT_SETTINGS,
            )
        return
    if fits(read_marker(), extra):
        if inside:
            fail(
                "{} lost {}: remove it and start again".format(VENV, ", ".join(lacking)),
                EXIT_SETTINGS,
            )
        return
    refuse_what_is_in_the_way(lacking)
    refuse_without_venv(lacking)
    lock = take_lock()
    try:
        if not fits(read_marker(), extra):
            set_up(extra, inside, lock)
    finally:
        os.close(lock)


def refuse_what_is_in_the_way(lacking):
    if os.path.isdir(VENV) or not os.path.lexists(VENV):
        return
    what = "a file"
    if os.path.islink(VENV):
        what = "a link to {}, which is not there".format(os.readlink(VENV))
    fail(
        "cannot set up {}: it is {}; remove it and start again,"
        " or start this in an environment that has {}".format(VENV, what, ", ".join(lacking)),
        EXIT_SETTINGS,
    )


def refuse_without_venv(lacking):
    absent = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if absent:
        fail(
            "cannot make {}: {} has no module {}; install it (Debian, Ubuntu:"
            " apt install python3-venv), or start this in an environment that has {}".format(
                VENV, sys.executable, " and ".join(absent), ", ".join(lacking)
            ),
            EXIT_SETTINGS,
        )


def take_lock():
    """A locked file descriptor; pip inherits it, so that the lock lasts until pip has ended too."""
    import fcntl

    os.makedirs(VENV, exist_ok=True)
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another program that sets up {}".format(VENV))
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def read_marker():
    try:
        with open(MARKER) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def write_marker(extras):
    marker = {
        "pyproject": pyproject_digest(),
        "checkout": ROOT,
        "extras": extras,
        "interpreter": os.path.realpath(VENV_PYTHON),
        "python": python_version(),
    }
    with open(MARKER + ".new", "w") as file:
        json.dump(marker, file)
    os.replace(MARKER + ".new", MARKER)


def fits(marker, extra):
    return (
        works(marker, extra)
        and marker["pyproject"] == pyproject_digest()
        and marker["checkout"] == ROOT
        and (not extra or extra in marker["extras"])
    )


def works(marker, extra):
    """Is the interpreter of `.venv` there, and the one that it was made with?

    A program runs in a finished `.venv` whichever Python started it: cron and a shell seldom find
    the same one, and must not replace it under each other. The tests run on the version that was
    asked for.
    """
    return (
        os.path.exists(VENV_PYTHON)
        and marker.get("interpreter") == os.path.realpath(VENV_PYTHON)
        and (not extra or marker["python"] == python_version())
    )


def pyproject_digest():
    with open(PYPROJECT, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def python_version():
    return "{}.{}".format(*sys.version_info[:2])


def set_up(extra, inside, lock):
    """Installs into a `.venv` that works, as programs may run in it; else makes a new one."""
    say("setting up {} (once; log: {})".format(VENV, LOG))
    open(LOG, "w").close()
    marker = read_marker()
    extras = {extra} - {""}
    if works(marker, extra):
        extras.update(marker["extras"])
        os.remove(MARKER)
    else:
        clear()
        base = getattr(sys, "_base_executable", None) if inside else sys.executable
        run_logged([base or sys.executable, "-I", "-m", "venv", VENV], lock)
    target = ".[{}]".format(",".join(sorted(extras))) if extras else "."
    pip = [VENV_PYTHON, "-I", "-m", "pip", "install", "--no-input"]
    run_logged(
        pip + ["pip>=21.3"], lock
    )  # the first that installs an editable project without setup.py
    run_logged(pip + ["--editable", target], lock)
    for distribution in OPTIONAL:
        logged_code(pip + ["--only-binary", ":all:", distribution], lock)
    write_marker(sorted(extras))


def clear():
    """The marker first: what is left after an interruption must not look finished."""
    for name in sorted(os.listdir(VENV), key=lambda name: name != os.path.basename(MARKER)):
        path = os.path.join(VENV, name)
        if path == LOCK:
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.remove(path)


def run_logged(command, lock):
    exit_code = logged_code(command, lock)
    if exit_code:
        explain_failure(command, exit_code)


def logged_code(command, lock):
    """The exit code of a command, whose output goes to the log."""
    with open(LOG, "ab") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(
                clean_environment(), PIP_USER="0"
            ),  # a `user = true` in pip.conf is refused in .venv
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            start_new_session=True,  # so that all of it can be ended together
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise


def explain_failure(command, exit_code):
    with open(LOG, errors="replace") as log:
        lines = [line.strip() for line in log if line.strip()]
    if any(sign in line for line in lines for sign in NETWORK_SIGNS):
        fail(
            "cannot set up {}: the package index cannot be reached; start again with network, "
            "or with PIP_INDEX_URL set to a mirror (log: {})".format(VENV, LOG),
            EXIT_NETWORK,
        )
    errors = [line for line in lines if line.lower().startswith("error:")] or lines or ["no output"]
    fail(
        "cannot set up {}: {} ended with {}: {} (log: {})".format(
            VENV, command[command.index("-m") + 1], exit_code, errors[-1][:300], LOG
        ),
        EXIT_SETTINGS,
    )


def clean_environment():
    return {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}


def say(message):
    sys.stderr.write("{}: {}\n".format(os.path.basename(sys.argv[0]), message))
    sys.stderr.flush()


def fail(message, exit_code):
    say(message)
    sys.exit(exit_code)
