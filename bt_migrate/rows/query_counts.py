"""How many queries read a number of rows: the basis of all estimates.

A page never ends between two rows with the same key, so all pages but the last one leave out the
row with the last key, which the next page begins with: see `PageReader`.
"""

from __future__ import annotations

import math
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional, Sequence, TypeVar

from bt_migrate.api.btql import MAX_LIMIT, OBJECTS_PER_QUERY
from bt_migrate.rows.facets import ROWS_ASKED

# How a comparison reads a sample: smaller objects share a query, up to this many rows; of a larger
# one, ids are read at so many places of its key range, and rows are looked up by so many ids.
ROWS_READ_TOGETHER = 2000
SAMPLE_PLACES = 4
IDS_AT_PLACE = 500
IDS_PER_LOOKUP = 50

Item = TypeVar("Item")


def read_together(
    items: Iterable[Item], rows_of: Callable[[Item], Optional[int]]
) -> Iterator[List[Item]]:
    """Yields the objects of one kind that a comparison reads with one query.

    Large objects, and objects whose rows could not be counted, are read alone.
    """
    group: List[Item] = []
    rows_held = 0
    for item in items:
        counted = rows_of(item)
        rows = ROWS_READ_TOGETHER if counted is None else counted
        full = rows_held + rows > ROWS_READ_TOGETHER or len(group) == OBJECTS_PER_QUERY
        if group and full:
            yield group
            group = []
            rows_held = 0
        group.append(item)
        rows_held += rows
    if group:
        yield group


def page_rows(rows: int, limit: int) -> List[int]:
    """Returns how many rows each page adds if the reader knows their number; at least one page."""
    *pages, last = _full_pages(max(0, rows - 1), limit)
    return [*pages, last + min(rows, 1)]


def page_rows_to_the_end(rows: int, limit: int) -> List[int]:
    """Returns the same for a reader that ends at an empty page: the last key has its own page."""
    return [*filter(None, _full_pages(max(0, rows - 1), limit)), *([1] if rows else [])]


def _full_pages(rows: int, limit: int) -> List[int]:
    full = max(1, limit - 1)
    count = max(1, math.ceil(rows / full))
    return [full] * (count - 1) + [rows - full * (count - 1)]


def pages(rows: int, limit: int) -> int:
    """Returns the queries of a reader that knows how many rows there are."""
    return len(page_rows(rows, limit))


def pages_to_the_end(rows: int, limit: int) -> int:
    """Returns the queries of a reader that ends at an empty page."""
    return len(page_rows_to_the_end(rows, limit)) + 1


def facet_queries(rows: int, limit: int) -> int:
    """Returns the queries for the facets of the rows of all pages."""
    return sum(math.ceil(count / ROWS_ASKED) for count in page_rows(rows, limit))


def id_pages(rows: int, full_page: int) -> int:
    """Returns the queries that list the ids of the rows.

    `full_page`: rows of a page that was seen, so that a page with fewer is known to be the last.
    """
    full, last = divmod(rows, MAX_LIMIT)
    return full + 1 + (last >= full_page if last else 0)


class BatchLimits(NamedTuple):
    """Rows of a page, and rows and bytes of an insert."""

    page_rows: int
    rows: int
    bytes: int


def inserts(pages: Iterable[float], row_bytes: float, limits: BatchLimits) -> int:
    """Returns the inserts for pages with so many new rows: no batch goes on over its page."""
    return sum(
        max(math.ceil(rows / limits.rows), math.ceil(rows * row_bytes / limits.bytes))
        for rows in pages
    )


def inserts_of_comments(
    pages: Iterable[float], row_bytes: float, limits: BatchLimits, share: float
) -> int:
    """Returns the requests for comments: one after each insert in which a row has any.

    `share`: of the rows that have comments.
    """
    expected = 0.0
    commented = 0.0
    for rows in pages:
        batches = inserts([rows], row_bytes, limits)
        commented += rows * share
        expected += batches * chance(share, rows / max(1, batches))
    return max(round(expected), min(1, round(commented)))


def inserts_of_merges(rows: int, share: float, limits: BatchLimits) -> float:
    """Returns the requests that complete rows of one object once others exist.

    `share`: of its rows that are completed.
    """
    return max(chance(share, rows), rows * share / limits.rows)


def chance(share: float, rows: float) -> float:
    """Returns the probability that one of the rows is among a share that is spread evenly."""
    return 1.0 - float((1.0 - share) ** rows)


class Origins(NamedTuple):
    """The rows of an object that were made from versions of dataset rows.

    `datasets`: how many datasets they name. `past`: how many transactions that no present row of
    these has. `past_rows`: the rows that name one of those.
    """

    rows: int = 0
    datasets: int = 0
    past: int = 0
    past_rows: int = 0

    def present(self) -> Origins:
        """Returns the origins in present rows."""
        return Origins(self.rows - self.past_rows, self.datasets)

    def share(self, rows: int, of: int) -> Origins:
        """Returns the origins of so many rows of an object that has `of`."""
        if not of or rows >= of:
            return self
        part = rows / of
        return self._replace(
            rows=round(self.rows * part), past_rows=math.ceil(self.past_rows * part)
        )


def lookup_queries(origins: Origins) -> int:
    """Returns the queries for one side that look up rows and the versions that they were made from.

    A row with such an origin names other transactions in the destination, so its text never agrees.
    """
    lookups = math.ceil(origins.rows / IDS_PER_LOOKUP)
    return lookups + pin_queries(origins, lookups)


def pin_queries(origins: Origins, lookups: int) -> int:
    """Returns the queries for the versions alone: the present rows first, then each transaction."""
    if not origins.rows:
        return 0
    present = min(origins.rows, lookups * origins.datasets)
    return present + min(origins.past_rows, lookups * origins.past)


def sample_queries(rows: Sequence[Optional[int]], sample: int, limit: int) -> int:
    """Returns the queries for one side that compare a sample of objects of one group.

    Without those of `pin_queries`. A large object is read at some places, the others as a whole.
    """
    (first, *others) = rows
    if others or (first is not None and first <= ROWS_READ_TOGETHER):
        return pages(sum(count or 0 for count in rows), limit)
    # The first and the last row; each side names other ids to look up.
    at_places = SAMPLE_PLACES * math.ceil(sample / SAMPLE_PLACES / IDS_AT_PLACE)
    return 2 + at_places + math.ceil(2 * sample / IDS_PER_LOOKUP)
