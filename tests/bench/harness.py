"""What every benchmark needs: sandboxes and migrations as processes of their own, their cost, and a
line for each figure.

This process stays small: a child starts with the peak memory of its parent as its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
Json = Dict[str, Any]
INSERTS = ("/insert", "/logs3")  # the last parts of the paths that rows are sent to

# Starts a program of the suite; without orjson if told so, even where it is installed.
LAUNCH = """
import runpy, sys
if sys.argv[1] == "standard":
    sys.modules["orjson"] = None
sys.argv[1:] = sys.argv[2:]
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


class Server:
    """A sandbox in a process of its own, filled as the shape says (see server.py)."""

    def __init__(self, **shape: Any) -> None:
        command = [sys.executable, str(HERE / "server.py"), json.dumps(shape)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        facts = json.loads(self.line())
        self.url: str = facts["url"]
        self.key: str = facts["key"]
        self.ids: Dict[str, List[str]] = facts["ids"]
        self._token: str = facts["token"]

    def line(self) -> str:
        """The next line that it prints; waits for it."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, word: str) -> int:
        assert self.process.stdin is not None
        print(word, file=self.process.stdin, flush=True)
        return int(self.line())

    def control(self, **body: Any) -> Json:
        """See bt_migrate/sandbox/control.py."""
        data = json.dumps({"token": self._token, **body}).encode()
        with urllib.request.urlopen(self.url + "/sandbox/control", data, timeout=60) as answer:
            return json.loads(answer.read())

    def requests(self, *endings: str) -> List[Json]:
        """The requests so far whose path ends in one of these ways, in order of arrival."""
        found = self.control(get=["requests"])["requests"]
        return [
            request for request in found if request["path"].split("?")[0].endswith(endings or ("",))
        ]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def server(**shape: Any) -> Iterator[Server]:
    running = Server(**shape)
    try:
        yield running
    finally:
        running.close()


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    code: int
    started: float  # unix seconds
    wall_s: float
    cpu_s: float  # user and system
    peak_mb: float


@dataclass
class Migration:
    """A program of the suite, as a process. `folder` holds its runs: the same folder resumes."""

    source: Server
    dest: Server
    folder: Path
    program: str = "migrate_logs"
    args: Sequence[str] = ()
    library: str = "standard"  # or "orjson"
    settings: Dict[str, str] = field(default_factory=dict)

    def start(self) -> Migration:
        module = f"bt_migrate.phases.{self.program}"
        command = [
            sys.executable,
            "-c",
            LAUNCH,
            self.library,
            module,
            "--state-dir",
            str(self.folder / "runs"),
            *self.args,
        ]
        env = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        env.update(HOME=str(self.folder), PYTHONPATH=str(REPOSITORY), LANG="C.UTF-8")
        env.update(BT_SOURCE_URL=self.source.url, BT_SOURCE_API_KEY=self.source.key)
        env.update(BT_DEST_URL=self.dest.url, BT_DEST_API_KEY=self.dest.key, **self.settings)
        self.started = time.time()
        with open(self.folder / "output.txt", "wb") as output:
            self.process = subprocess.Popen(
                command,
                env=env,
                cwd=str(self.folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return self

    def end(self, *, expected: int = 0) -> Cost:
        """Wait for its end. Raises SystemExit with its last lines if it did not end as expected."""
        _, status, usage = os.wait4(self.process.pid, 0)
        wall = time.time() - self.started
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        self.process.returncode = code
        if code != expected:
            raise SystemExit(
                f"{self.program} ended with {code}:\n"
                + (self.folder / "output.txt").read_text()[-2000:]
            )
        return Cost(
            code, self.started, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        )

    def kill(self) -> Cost:
        os.kill(
            self.process.pid, signal.SIGKILL
        )  # Popen's own would take the end of one that has died, which is for end()
        return self.end(expected=-signal.SIGKILL)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        os.kill(self.process.pid, signal.SIGSTOP)
        yield
        os.kill(self.process.pid, signal.SIGCONT)


@contextlib.contextmanager
def migration(source: Server, dest: Server, **how: Any) -> Iterator[Migration]:
    """One that begins from nothing; it does not outlive the benchmark."""
    with tempfile.TemporaryDirectory(prefix="bench_") as folder:
        running = Migration(source, dest, Path(folder), **how).start()
        try:
            yield running
        finally:
            if running.process.returncode is None:
                running.kill()


def migrate(
    source: Server, dest: Optional[Server] = None, *, rows: Optional[int] = None, **how: Any
) -> Cost:
    """One run from nothing, into an empty destination of its own if none is given. `rows`: how many
    have to arrive.
    """
    with contextlib.ExitStack() as stack:
        target = dest or stack.enter_context(server(name="dest"))
        cost = stack.enter_context(migration(source, target, **how)).end()
        if rows is not None:
            check_arrived(target, rows)
        return cost


def check_arrived(dest: Server, rows: int) -> None:
    arrived = dest.ask("rows")
    if arrived != rows:
        raise SystemExit(f"{arrived} of {rows} rows arrived")


def idle(**how: Any) -> Cost:
    """A run that has no rows to move."""
    with server(projects=1) as source:
        return migrate(source, rows=0, **how)


def floor(*arguments: str) -> Json:
    """See floor.py."""
    done = subprocess.run(
        [sys.executable, str(HERE / "floor.py"), *arguments], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def has_orjson() -> bool:
    return subprocess.call([sys.executable, "-c", "import orjson"], stderr=subprocess.DEVNULL) == 0


def libraries() -> List[str]:
    return ["standard", "orjson"] if has_orjson() else ["standard"]


# Figures
# ---------------------------------------------------------------------------------------------


def show(
    what: str, values: Sequence[float], most: float, unit: str = "", *, at_least: bool = False
) -> bool:
    """Print one figure: the median of its runs against what is to be reached; returns whether it
    is.
    """
    median = statistics.median(values)
    reached = median >= most if at_least else median <= most
    sign = ">=" if at_least else "<="
    all_runs = " ".join(f"{value:.3g}" for value in values)
    print(
        f"{'reached' if reached else 'MISSED ':7}  {what}: {median:.3g}{unit} ({sign} "
        f"{most:g}{unit}; runs: {all_runs})",
        flush=True,
    )
    return reached


def tell(text: str) -> None:
    """A line that explains figures."""
    print("         " + text, flush=True)


def median_of(values: Sequence[float]) -> float:
    return statistics.median(values)
