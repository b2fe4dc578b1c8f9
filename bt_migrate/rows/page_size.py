"""The number of rows to request: fewer if a server finds pages too large, later more again.

Pure, except that it records what was learned about the server for other streams.
"""

from __future__ import annotations

from bt_migrate.api.btql import MIN_LIMIT, smaller_limit
from bt_migrate.api.capabilities import Capabilities

# consecutive pages that must succeed before a reduced limit is doubled again; four times as many
# after it failed again
PAGES_BEFORE_GROWTH = 4


class PageSize:
    """The limit of the next query of one stream."""

    def __init__(self, most: int, capabilities: Capabilities) -> None:
        self._most = most
        self._capabilities = capabilities
        self._limit = min(most, capabilities.page_rows)
        self._patience = PAGES_BEFORE_GROWTH
        self._good_pages = 0
        self._grown = False
        self._widened = False

    @property
    def limit(self) -> int:
        return min(self._limit, self._capabilities.query_limit.most)

    @property
    def smaller_helps(self) -> bool:
        """Whether a query that takes too long should be repeated with a smaller limit."""
        return self.limit > MIN_LIMIT and not self._widened

    def shrink(self) -> None:
        """Lower the limit after a query took too long."""
        self._limit = smaller_limit(self.limit)
        self._good_pages = 0
        self._capabilities.page_rows = min(self.limit, self._capabilities.page_rows)
        if self._grown:
            self._patience *= 4
        self._grown = False

    def widen(self, rows: int) -> None:
        """Raise the limit: a page was full of one key, and all rows of a key are needed at once."""
        self._limit = rows * 2
        self._widened = True

    def note_page(self) -> None:
        """Count a page that was read."""
        self._good_pages += 1
        self._limit = min(self._limit, self._most)
        self._widened = False
        if self._limit < self._most and self._good_pages % self._patience == 0:
            self._limit = min(self._most, self._limit * 2)
            self._grown = True
            self._capabilities.page_rows = self._limit
