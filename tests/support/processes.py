"""Programs as processes of their own that start at once.

An interpreter that starts and imports the modules takes 0.4 s of CPU time, a fork 0.01 s. Here one
process, the template, imports them and forks for each program: what a test gets is a real process,
which can be killed and ends as every Python program ends.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

REPOSITORY = Path(__file__).resolve().parent.parent.parent
INHERITED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)  # where they are ignored
MAX_ORDER_BYTES = 1 << 20
FD_BYTES = array.array("i").itemsize


class Process:
    """A started program, with the methods of subprocess.Popen that tests use.

    With a `terminal`, it writes to that instead of stdout and stderr.
    """

    def __init__(
        self,
        module: str,
        args: List[str],
        env: Mapping[str, str],
        cwd: Path,
        *,
        terminal: Optional[int] = None,
    ) -> None:
        order = {
            "module": module,
            "args": args,
            "env": dict(env),
            "cwd": str(cwd),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "ignored": [int(n) for n in INHERITED if signal.getsignal(n) == signal.SIG_IGN],
        }
        ours, theirs = zip(*(os.pipe() for _ in range(3)))
        TEMPLATE.order(order, theirs if terminal is None else (terminal, terminal, theirs[2]))
        for number in theirs:
            os.close(number)
        self.returncode: Optional[int] = None
        self.stdout, self.stderr = (os.fdopen(number, encoding="utf-8") for number in ours[:2])
        self._told = os.fdopen(ours[2])
        self.pid = int(self._told.readline())

    def poll(self) -> Optional[int]:
        return self._code(0)

    def wait(self, timeout: Optional[float] = None) -> int:
        code = self._code(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def _code(self, timeout: Optional[float]) -> Optional[int]:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            status = int(self._told.readline())
            ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            self.returncode = -ended_by or os.WEXITSTATUS(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: Optional[float] = None) -> Tuple[str, str]:
        """What is left of stdout and stderr, once the program has ended."""
        texts: Dict[Any, str] = {}
        readers = [
            threading.Thread(target=lambda f=file: texts.update({f: f.read()}), daemon=True)
            for file in (self.stdout, self.stderr)
            if not file.closed
        ]
        for reader in readers:
            reader.start()
        end = time.monotonic() + (timeout or float("inf"))
        for reader in readers:
            reader.join(None if timeout is None else max(0.0, end - time.monotonic()))
        self.wait(None if timeout is None else max(0.0, end - time.monotonic()))
        for file in (self.stdout, self.stderr, self._told):
            file.close()
        return texts.get(self.stdout, ""), texts.get(self.stderr, "")


class Template:
    """The process that has imported the modules; started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: Optional[socket.socket] = None

    def order(self, order: Mapping[str, Any], files: Tuple[int, ...]) -> None:
        """Start a program with these files as stdout, stderr, and a pipe for its id and its end."""
        with self._lock:
            if self._channel is None:
                self._channel = self._started()
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))
            self._channel.sendmsg([json.dumps(order).encode()], [rights])
            self._channel.recv(1)  # so that orders arrive one by one

    def _started(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        names = ("PATH", "TMPDIR")
        env = {name: os.environ[name] for name in names if name in os.environ}
        env.update(PYTHONPATH=str(REPOSITORY), PYTHONIOENCODING="utf-8", LANG="C.UTF-8")
        command = [sys.executable, "-m", "tests.support.processes", str(theirs.fileno())]
        subprocess.Popen(command, env=env, cwd=REPOSITORY, pass_fds=[theirs.fileno()])
        theirs.close()
        return ours


TEMPLATE = Template()


# -- in the template


def next_program(channel: socket.socket) -> Dict[str, Any]:
    """Returns in a new process with the program that it is to run; {} when the tests have ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    while True:
        message, rights, _, _ = channel.recvmsg(MAX_ORDER_BYTES, socket.CMSG_SPACE(3 * FD_BYTES))
        if not message:
            return {}
        files = array.array("i", rights[0][2])
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            channel.close()
            if keeps(*files):
                os._exit(0)
            return dict(json.loads(message))
        for number in files:
            os.close(number)
        channel.send(b".")


def keeps(out: int, err: int, told: int) -> bool:
    """Forks the program; True in the process that told its id and how it ended, once it has."""
    pid = os.fork()
    if pid == 0:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, standard in zip((nothing, out, err), range(3)):
            os.dup2(number, standard)
        os.closerange(3, 64)
        return False
    os.close(out)
    os.close(err)
    os.write(told, b"%d\n" % pid)
    os.write(told, b"%d\n" % os.waitpid(pid, 0)[1])
    return True


def become(order: Mapping[str, Any]) -> None:
    """Go on as `python -m module` would have begun, in the folder and environment of a test."""
    for number in order["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_NOFILE, order["files"])
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    sys.path[0] = order["cwd"]
    sys.argv[:] = [order["module"], *order["args"]]
    sys.modules.pop(order["module"], None)  # it is run as __main__
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    package = importlib.import_module("bt_migrate")
    for module in pkgutil.walk_packages(package.__path__, "bt_migrate."):
        if not module.name.startswith("bt_migrate.sandbox"):
            importlib.import_module(module.name)
    gc.freeze()
    order = next_program(socket.socket(fileno=int(sys.argv[1])))
    if order:
        become(order)


if __name__ == "__main__":
    main()
