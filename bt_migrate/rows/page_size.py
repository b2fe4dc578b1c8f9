"""How many rows to ask for: fewer where a server finds pages too large, more again once it keeps
up. Pure, but for what is learned of the server for the streams that come after.
"""

from __future__ import annotations

from bt_migrate.api.btql import MAX_LIMIT, MIN_LIMIT, smaller_limit
from bt_migrate.api.capabilities import Capabilities

# pages in a row that must succeed before a reduced limit is doubled again; four times as many after
# it failed again
PAGES_BEFORE_GROWTH = 4


class PageSize:
    """The limit of the next query of one stream."""

    def __init__(self, most: int, capabilities: Capabilities) -> None:
        self._most = min(most, MAX_LIMIT)
        self._capabilities = capabilities
        self.limit = min(self._most, capabilities.page_rows)
        self._patience = PAGES_BEFORE_GROWTH
        self._good_pages = 0
        self._grown = False
        self._widened = False

    @property
    def smaller_helps(self) -> bool:
        """Whether a query that takes too long is worth asking with a smaller limit."""
        return self.limit > MIN_LIMIT and not self._widened

    def shrink(self) -> None:
        """The server took too long for so many rows."""
        self.limit = smaller_limit(self.limit)
        self._good_pages = 0
        self._capabilities.page_rows = min(self.limit, self._capabilities.page_rows)
        if self._grown:
            self._patience *= 4
        self._grown = False

    def widen(self, rows: int) -> None:
        """A page was full of one key: all rows of that key are needed at once."""
        self.limit = min(MAX_LIMIT, rows * 2)
        self._widened = True

    def note_page(self) -> None:
        """A page was read."""
        self._good_pages += 1
        self.limit = min(self.limit, self._most)
        self._widened = False
        if self.limit < self._most and self._good_pages % self._patience == 0:
            self.limit = min(self._most, self.limit * 2)
            self._grown = True
            self._capabilities.page_rows = self.limit
