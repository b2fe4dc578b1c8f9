"""Both clients of a program, connected, and the identity of a run.

Knows nothing of run directories and phases.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Tuple

from bt_migrate.api.client import Api
from bt_migrate.api.organization import connect
from bt_migrate.api.transport import Limits
from bt_migrate.config.settings import Settings
from bt_migrate.errors import UsageError


def connected(settings: Settings, stop: threading.Event, *, writes: bool) -> Tuple[Api, Api]:
    """Returns both clients with their organizations known. Raises UsageError if these are the same.

    Both keys are checked at the same time.
    """
    with ThreadPoolExecutor(2, thread_name_prefix="connect") as pool:
        source_future = pool.submit(connect_source, settings, stop)
        dest_future = pool.submit(connect_destination, settings, stop, writes=writes)
    source = source_future.result()
    dest = dest_future.result()
    if source.org_id == dest.org_id:
        raise UsageError(
            f"source and destination are the same organization, {source.display_name}"
            f" ({source.org_id}); check the two keys"
        )
    return source, dest


def connect_source(settings: Settings, stop: threading.Event) -> Api:
    """Returns the source's client, which cannot write. Raises UsageError."""
    source = Api(
        "source",
        settings.source_url,
        settings.source_api_key,
        _limits(settings),
        writable=False,
        stop=stop,
    )
    connect(source, settings.source_org, "BT_SOURCE")
    return source


def connect_destination(settings: Settings, stop: threading.Event, *, writes: bool = True) -> Api:
    """Returns the destination's client. Raises UsageError."""
    dest = Api(
        "destination",
        settings.dest_url,
        settings.dest_api_key,
        _limits(settings),
        writable=writes,
        stop=stop,
    )
    connect(dest, settings.dest_org, "BT_DEST")
    return dest


def _limits(settings: Settings) -> Limits:
    return Limits(
        attempts=settings.retry_attempts,
        delay_s=settings.retry_delay,
        max_concurrent=settings.max_concurrent,
        queries_per_minute=settings.btql_per_minute,
    )


def identity_of(settings: Settings, source: Api, dest: Api) -> Dict[str, Any]:
    """Returns what a run is made for. Kept in run.json and compared at each start; holds no key."""
    identity: Dict[str, Any] = {
        "source": _side_of(source),
        "dest": _side_of(dest),
        "selection": _selection_of(settings),
    }
    if settings.shard:
        identity["shard"] = settings.shard
    identity["relative_window"] = settings.relative_window
    identity["dry_run"] = settings.dry_run
    return identity


def _side_of(api: Api) -> Dict[str, str]:
    return {"org_id": api.org_id, "org_name": api.display_name, "url": api.url}


def _selection_of(settings: Settings) -> Dict[str, Any]:
    selection: Dict[str, Any] = {
        "resources": list(settings.resources),
        "projects": sorted(settings.projects),
        "created_after": settings.created_after,
        "created_before": settings.created_before,
    }
    if settings.rename_projects:
        selection["rename_projects"] = dict(settings.rename_projects)
    if settings.part:
        selection["part"] = settings.part
    return selection
