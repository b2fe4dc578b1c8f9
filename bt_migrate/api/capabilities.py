"""What one server is known to do, learned from its answers during the run."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Set

from bt_migrate.api.btql import MAX_LIMIT
from bt_migrate.api.page_limits import PageLimit

# Where the facets of rows are shown: no row has any; in every shape; in shape `traces` only.
NOWHERE = "nowhere"
SPANS = "spans"
TRACES = "traces"


@dataclass
class FacetPlace:
    """Where the facets of one kind of rows are shown. `objects`: those whose rows have any; known
    for TRACES only.
    """

    shown: str
    objects: List[str] = field(default_factory=list)

    def joined(self, other: FacetPlace) -> FacetPlace:
        """What is known after more objects were asked for."""
        if SPANS in (self.shown, other.shown):
            return FacetPlace(SPANS)
        objects = sorted({*self.objects, *other.objects})
        return FacetPlace(TRACES if objects else NOWHERE, objects)


@dataclass
class FacetPlaces:
    """What is known of each kind of rows. `lock` is held while a server is asked."""

    places: Dict[str, FacetPlace] = field(default_factory=dict)
    # kind of rows -> objects that were asked for in this process
    queried: Dict[str, Set[str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class InsertSizes:
    """Bytes of rows in one insert: the most that were accepted, and the fewest that were refused
    as too large (0: none were).
    """

    accepted: int = 0
    refused: int = 0

    def fits(self, size: int) -> bool:
        """Whether rows of this size are worth sending at once, after what was refused."""
        return not self.refused or size <= max(self.accepted, self.refused // 2)


@dataclass
class Capabilities:
    """Each fact starts as the safe assumption. Threads may learn the same fact twice."""

    # a query over several objects returned rows of more than one
    reads_groups: bool = False
    # a row came with comments
    shows_comments: bool = False
    # a query with IN was refused
    lacks_in: bool = False
    # POST /logs3 exists, and its answers name every row that was sent
    logs3_delivers: bool = True
    # of queries, and of lists (a data plane can set lower ones than the hosted service)
    query_limit: PageLimit = field(default_factory=lambda: PageLimit(MAX_LIMIT))
    list_limit: PageLimit = field(default_factory=PageLimit)
    # rows of the largest page that worked; fewer once the server found pages too large
    page_rows: int = MAX_LIMIT
    # rows of the largest page that was as full as was asked for: up to it the server does not cap
    # pages
    full_page_rows: int = 0
    facets: FacetPlaces = field(default_factory=FacetPlaces)
    # largest body of POST /logs3, 0 where the server announces none; None: not asked yet
    logs3_max_bytes: Optional[int] = None
    insert_sizes: InsertSizes = field(default_factory=InsertSizes)
