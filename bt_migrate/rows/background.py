"""Rows that are still on their way while the phases after theirs make objects.

What comes behind has its bounds for itself: the rows of the next kind wait for these, and so do all phases but those that only
make objects.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Callable, Iterable, Optional, Type

from bt_migrate.errors import Interrupted

SIGNAL_S = 0.5


def wait_for(futures: Iterable[Future[None]]) -> None:
    """Until all are done, in pieces: a signal that comes just as a wait begins is heard at the end of that wait only."""
    while wait(futures, SIGNAL_S).not_done:
        pass


class BackgroundRows:
    """The end of one phase's rows. `halt` is set where an error ends the run: then no stream goes on. `with`: at its end nothing is on
    its way.
    """

    def __init__(self) -> None:
        self.halt = threading.Event()
        self.rest: Optional[Future[None]] = None  # what is on its way

    def begin(self, finish: Callable[[], None]) -> None:
        """Finish rows in a thread of its own, after those before."""
        self.wait()
        pool = ThreadPoolExecutor(1, thread_name_prefix="tail")
        self.rest = pool.submit(finish)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Until nothing is on its way. Raises what went wrong with it."""
        if self.rest is not None:
            wait_for([self.rest])
            rest, self.rest = self.rest, None
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
            if error is None or isinstance(error, Interrupted):  # others stopped because of it
                raise cause from None
