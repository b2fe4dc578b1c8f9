"""A proxy between a program and the sandbox that can refuse, reset or stall connections."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Set
from urllib.parse import urlsplit

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


class Relay:
    """`with Relay(url) as relay`: what is sent to `relay.url` goes to `url` and back.

    `cut` refuses new connections and resets open ones. `hold` accepts connections and bytes, and
    forwards none. `restore` ends both.
    """

    def __init__(self, url: str) -> None:
        self._target = (urlsplit(url).hostname, urlsplit(url).port)
        self._lock = threading.Lock()
        self._open: Set[socket.socket] = set()
        self._flows = threading.Event()
        self._port = 0
        self.restore()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._flows.set()

    def hold(self) -> None:
        self._flows.clear()

    def cut(self) -> None:
        with self._lock:
            doomed, self._open = {self._listener, *self._open}, set()
            self._listening = False
        with contextlib.suppress(OSError):  # wakes the thread that waits for a connection
            socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
        for item in doomed:
            _reset(item)

    def restore(self) -> None:
        self._flows.set()
        if getattr(self, "_listening", False):
            return
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self._port))
        self._listener.listen(256)
        self._port = int(self._listener.getsockname()[1])
        self._listening = True
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            for item in (near, far):
                item.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                served = self._listening and listener is self._listener
                if served:
                    self._open |= {near, far}
            if not served:
                _reset(near)
                _reset(far)
                return
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, here: socket.socket, there: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for data in iter(lambda: here.recv(1 << 16), b""):
                self._flows.wait()
                there.sendall(data)
            there.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    """Close with RST, and wake the thread that reads from it."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
    connection.close()
