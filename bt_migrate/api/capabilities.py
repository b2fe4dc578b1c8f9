"""What one server is known to do, learned from its answers during the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from bt_migrate.api.btql import MAX_LIMIT


@dataclass
class Capabilities:
    """Each fact starts as the safe assumption. Threads may learn the same fact twice."""

    # a query over several objects returned rows of more than one
    reads_groups: bool = False
    # a row came with comments
    shows_comments: bool = False
    # a query with IN was refused
    lacks_in: bool = False
    # POST /logs3 takes rows and accounts for them; it names the transaction of a delivery
    logs3_delivers: bool = True
    # rows of the largest page that worked; fewer once the server found pages too large
    page_rows: int = MAX_LIMIT
    # rows of the largest page that was as full as was asked for: up to it the server does not cap
    # pages
    full_page_rows: int = 0
    # largest body of POST /logs3, 0 where the server announces none; None: not asked yet
    logs3_max_bytes: Optional[int] = None
