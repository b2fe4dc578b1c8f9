"""A small HTTP server on a free loopback port: sends prepared answers and records requests."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, List, Optional, Sequence, Union


@dataclass(frozen=True)
class Asked:
    """One request as it came in; `at` and `answered` are of the monotonic clock."""

    method: str
    path: str
    headers: Dict[str, str]
    body: bytes
    at: float
    number: int


@dataclass(frozen=True)
class Reply:
    """An answer. `sent`: bytes of the body that are sent before the connection is closed.

    With `status` 0 the connection is closed without an answer.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: Dict[str, str] = field(default_factory=dict)
    sent: Optional[int] = None
    seconds: float = 0.0


Answers = Union[Sequence[Reply], Callable[[Asked], Reply]]


class Loopback:
    """`with Loopback([Reply(...), ...]) as server`: sends the answers in turn, then the last one.

    A function instead of a list returns the answer to each request.
    """

    def __init__(self, answers: Answers, port: int = 0) -> None:
        self.asked: List[Asked] = []
        self.answered: List[float] = []  # when each answer was ready to go out
        self.in_flight = 0
        self.in_flight_max = 0
        self._answers = answers
        self._lock = threading.Lock()
        self._connections: List[socket.socket] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def __enter__(self) -> Loopback:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:  # a host that is gone answers on none of them
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def take(self, asked: Asked) -> Reply:
        if callable(self._answers):
            return self._answers(asked)
        return self._answers[min(asked.number, len(self._answers) - 1)]

    def _handler(self) -> Any:
        return type("Handler", (_Handler,), {"owner": self})


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client to the server `owner`."""

    owner: Any
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

    def setup(self) -> None:
        self.owner._connections.append(self.request)
        super().setup()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.owner._lock:
            asked = Asked(
                self.command,
                self.path,
                dict(self.headers),
                body,
                time.monotonic(),
                len(self.owner.asked),
            )
            self.owner.asked.append(asked)
            self.owner.in_flight += 1
            self.owner.in_flight_max = max(self.owner.in_flight_max, self.owner.in_flight)
        try:
            reply = self.owner.take(asked)
            time.sleep(reply.seconds)
        finally:
            with self.owner._lock:
                self.owner.in_flight -= 1
                self.owner.answered.append(time.monotonic())
        self.send(reply)

    def send(self, reply: Reply) -> None:
        if not reply.status:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.send_response_only(reply.status)
        usual = {
            "Date": self.date_time_string(),
            "Content-Type": "application/json",
            "Content-Length": str(len(reply.body)),
        }
        for name, value in {**usual, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: reply.sent])
        if reply.sent is not None:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
