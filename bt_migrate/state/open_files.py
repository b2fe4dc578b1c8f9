"""How many files this process may have open, and which SQLite stores of streams are open.

A store takes three files (itself, its write-ahead log and its index), and streams that are read
together are many: the stores that were used longest ago are closed, and opened again when needed.
"""

from __future__ import annotations

import contextlib
import resource
import threading
from typing import Callable, Dict, Optional

FILES_OF_A_STORE = 3
# Connections, logs, attachments and what Python itself has open.
RESERVED_FILES = 400
# What Python, logs and checkpoints have open, under a low limit.
OWN_FILES = 20
MIN_STORES = 4
MAX_STORES = 1000
# More than a process ever needs; where the hard limit is "unlimited", a system may refuse that.
MAX_FILES = 65_536


def raise_file_limit() -> None:
    """Raise this process's limit of open files to the hard limit, where the system allows it."""
    with contextlib.suppress(ValueError, OSError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def max_open_stores() -> int:
    """How many stores may be open at a time under the limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_STORES
    free = max(soft - RESERVED_FILES, soft // 4)
    return max(MIN_STORES, min(MAX_STORES, free // FILES_OF_A_STORE))


def max_connections() -> int:
    """How many requests to each organization may be in flight beside a few open stores.

    Each may have a connection to the API and one to the store of attachments.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_FILES
    return max(1, (soft - OWN_FILES - max_open_stores() * FILES_OF_A_STORE) // 4)


class OpenStores:
    """The open stores, the one used last at the end. Safe for many threads."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._max: Optional[int] = None
        self._lock = threading.Lock()
        # Store -> closes it unless it is in use; returns whether it is closed.
        self._open: Dict[object, Callable[[], bool]] = {}

    def used(self, store: object, close_if_unused: Callable[[], bool]) -> None:
        """Note that a store is open and in use; close others that are above the limit."""
        with self._lock:
            if self._max is None:
                self._max = self._limit()
            self._open.pop(store, None)
            self._open[store] = close_if_unused
            surplus = len(self._open) - self._max
            oldest = list(self._open.items())[: max(0, surplus)]
        for other, close in oldest:
            if other is not store and close():
                self.closed(other)

    def closed(self, store: object) -> None:
        with self._lock:
            self._open.pop(store, None)

    def __len__(self) -> int:
        return len(self._open)


# File descriptors belong to the process, and so does this.
OPEN_STORES = OpenStores(max_open_stores)
