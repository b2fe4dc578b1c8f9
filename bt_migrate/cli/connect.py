"""Connects both clients of a program, and says what a run is made for.

This module does not know run directories and phases.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Tuple

from bt_migrate.api.client import Api
from bt_migrate.api.organization import connect
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.config.settings import Settings
from bt_migrate.errors import UsageError
from bt_migrate.model.run_identity import RunSide, Selection
from bt_migrate.report.display import plural
from bt_migrate.state.open_files import max_connections
from bt_migrate.state.run_record import Identity

log = logging.getLogger("bt_migrate.cli")


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
    if max_connections() < settings.max_concurrent:
        log.warning(
            "only %s to each side at a time, not %d: the limit of open files is low;"
            " raise it (ulimit -n)",
            plural(max_connections(), "request"),
            settings.max_concurrent,
        )
    endpoint = Endpoint("source", settings.source_url, settings.source_api_key)
    source = Api(endpoint, _limits(settings), writable=False, stop=stop)
    connect(source, settings.source_org, "BT_SOURCE")
    return source


def connect_destination(settings: Settings, stop: threading.Event, *, writes: bool = True) -> Api:
    """Returns the destination's client. Raises UsageError."""
    endpoint = Endpoint("destination", settings.dest_url, settings.dest_api_key)
    dest = Api(endpoint, _limits(settings), writable=writes, stop=stop)
    connect(dest, settings.dest_org, "BT_DEST")
    return dest


def _limits(settings: Settings) -> Limits:
    return Limits(
        attempts=settings.retry_attempts,
        delay_s=settings.retry_delay,
        max_concurrent=min(settings.max_concurrent, max_connections()),
        queries_per_minute=settings.btql_per_minute,
        rate_limit_tries=settings.rate_limit_tries,
        max_retry_after_s=settings.max_retry_after,
    )


def identity_of(settings: Settings, source: Api, dest: Api) -> Identity:
    """Returns what a run is made for. Kept in run.json and compared at each start; holds no key."""
    return Identity(
        _side_of(source),
        _side_of(dest),
        _selection_of(settings),
        settings.dry_run,
        settings.shard,
        settings.relative_window,
    )


def _side_of(api: Api) -> RunSide:
    return RunSide(api.org_id, api.display_name, api.url)


def _selection_of(settings: Settings) -> Selection:
    return Selection(
        list(settings.resources),
        sorted(settings.projects),
        settings.created_after,
        settings.created_before,
        dict(settings.rename_projects) or None,
        settings.part or None,
        sorted(settings.exclude_projects) or None,
    )
