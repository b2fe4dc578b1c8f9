"""HTTP origins on loopback, with threads that can be stopped and connections that can be broken."""

from __future__ import annotations

import contextlib
import http.server
import io
import socket
import socketserver
import struct
import sys
import threading
from email.utils import formatdate
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, List, Set

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.clock import Clock

REASONS = {status.value: status.phrase for status in http.HTTPStatus}
# A body that is larger is not read at all; the API's own limits are below.
MAX_READ_BYTES = 256 << 20
COPY_BYTES = 1 << 16


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection, kept alive; `serve` of its origin does the rest."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 1 << 16
    server: Origin

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def version_string(self) -> str:
        return "sandbox"

    def do_GET(self) -> None:
        self.server.serve(self)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = do_GET  # noqa: N815

    def body_length(self) -> int:
        """Bytes of the body; a chunked body is read into memory first."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            data = self._read_chunks()
            self.body_stream: BinaryIO = io.BytesIO(data)
            self.unread = len(data)
            return len(data)
        self.body_stream = self.rfile  # type: ignore[assignment]
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_READ_BYTES:
            self.close_connection = True
            raise ConnectionAbortedError(f"a body of {length} bytes")
        self.unread = length
        return length

    def _read_chunks(self) -> bytes:
        parts: List[bytes] = []
        while True:
            size = int(self.rfile.readline().split(b";")[0] or b"0", 16)
            parts.append(self.rfile.read(size))
            self.rfile.readline()
            if size == 0:
                return b"".join(parts)

    def read_body(self) -> bytes:
        length = self.body_length()
        data = self.body_stream.read(length) if length else b""
        if len(data) != length:
            raise ConnectionResetError("the body ended early")
        self.unread = 0
        return data

    def _drain(self) -> None:
        """Read the rest of the body: a client that is still sending would not see the answer."""
        while self.unread > 0:
            data = self.body_stream.read(min(self.unread, COPY_BYTES))
            self.unread = self.unread - len(data) if data else 0

    def send_answer(self, answer: Answer, *, cut: bool = False) -> None:
        """Send it; `cut` sends half of the body and closes."""
        self._drain()
        size = answer.body.stat().st_size if isinstance(answer.body, Path) else len(answer.body)
        lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Unknown')}"]
        headers: Dict[str, str] = {"Content-Type": answer.content_type, "Content-Length": str(size)}
        headers["Date"] = formatdate(self.server.clock.seconds(), usegmt=True)
        headers.update(answer.headers)
        if cut or self.close_connection:
            self.close_connection = True
            headers["Connection"] = "close"
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if isinstance(answer.body, Path) and not cut:
            self.connection.sendall(head)
            self._send_file(answer.body)
            return
        body = answer.body.read_bytes() if isinstance(answer.body, Path) else answer.body
        body = b"" if self.command == "HEAD" else body[: size // 2] if cut else body
        self.connection.sendall(head + body)

    def _send_file(self, path: Path) -> None:
        with path.open("rb") as file:
            for data in iter(lambda: file.read(COPY_BYTES), b""):
                self.connection.sendall(data)

    def reset(self) -> None:
        """End the connection with RST, as a dying load balancer does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the connection was reset
            super().finish()


class Origin(socketserver.TCPServer):
    """A listening socket whose connections are served by threads of their own."""

    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, port: int, serve: Callable[[Handler], None], clock: Clock) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.serve = serve
        self.clock = clock
        self._open: Set[socket.socket] = set()
        self._threads: Set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        self._acceptor.start()

    def _accept(self) -> None:
        while not self._stopping:
            self.handle_request()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return not self._stopping

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self._serve_connection, args=(request, client_address), daemon=True
        )
        with self._lock:
            self._open.add(request)
            self._threads.add(thread)
        thread.start()

    def _serve_connection(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # clients may go away at any moment, and are killed in tests
        finally:
            with self._lock:
                self._open.discard(request)
                self._threads.discard(threading.current_thread())
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Close all connections and wait for their threads, except those that a fault holds."""
        self._stopping = True
        with contextlib.suppress(OSError):  # wakes the thread that waits for a connection
            socket.create_connection(("127.0.0.1", self.server_address[1]), timeout=2).close()
        self._acceptor.join(timeout=2)
        self.server_close()
        with self._lock:
            connections = list(self._open)
            threads = list(self._threads)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(timeout=2)
