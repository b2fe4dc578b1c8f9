"""Rows of one phase that are still being copied while the next phases create objects.

Memory limits are per kind of rows, so the rows of the next kind wait until this background copy has
ended, and so do all phases except those that only create objects.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Callable, Iterable, Optional, Type

from bt_migrate.errors import Interrupted

# a signal is handled within this time
SIGNAL_S = 0.5


def wait_for(futures: Iterable[Future[None]]) -> None:
    """Wait in short slices, so that a signal is handled within SIGNAL_S."""
    while wait(futures, SIGNAL_S).not_done:
        pass


class BackgroundRows:
    """The rows of one phase that are copied in the background. Leaving `with` waits for them.

    `halt` is set by an error that ends the run; streams then stop at their next page.
    """

    def __init__(self) -> None:
        self.halt = threading.Event()
        # the current background copy
        self.rest: Optional[Future[None]] = None

    def begin(self, finish: Callable[[], None]) -> None:
        """Run `finish` in a background thread, once the copy before it has ended."""
        self.wait()
        pool = ThreadPoolExecutor(1, thread_name_prefix="background-rows")
        self.rest = pool.submit(finish)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Wait until the copy has ended. Raises the error that ended it."""
        if self.rest is not None:
            wait_for([self.rest])
            rest = self.rest
            self.rest = None
            rest.result()

    def __enter__(self) -> BackgroundRows:
        return self

    def __exit__(
        self,
        _: Optional[Type[BaseException]],
        error: Optional[BaseException],
        where: Optional[TracebackType],
    ) -> None:
        if error is not None:
            self.halt.set()
        try:
            self.wait()
        except Interrupted:
            if error is None:
                raise
        except BaseException as cause:
            # Interruptions follow from the first error: only that one is raised.
            if error is None or isinstance(error, Interrupted):
                raise cause from None
