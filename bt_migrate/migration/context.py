"""What a phase is given: the settings, the catalog, the run, and the pairs of projects."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Optional, Set

from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.config.settings import Settings
from bt_migrate.model.json_object import JsonObject
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.background import BackgroundRows
from bt_migrate.rows.count import RowCounts
from bt_migrate.rows.origins import NamedVersions
from bt_migrate.state.run_directory import RunDirectory


@dataclass(frozen=True)
class Migration:
    """All that a phase needs. `stop` is set when a person asks for the end."""

    settings: Settings
    catalog: Catalog
    run: RunDirectory
    copier: AttachmentCopier
    stop: threading.Event
    objects_only: bool = False  # rows are neither copied nor counted
    background: BackgroundRows = field(default_factory=BackgroundRows)
    # source row counts by object, shared by validation, plans and copies
    counts: RowCounts = field(default_factory=RowCounts)
    # versions of dataset rows that origins name, shared by validation and copies
    named_versions: NamedVersions = field(default_factory=NamedVersions)
    # Source ids of projects that could not be created. They are left to the next start, so that
    # every phase stays open for what belongs to them.
    failed_projects: Set[str] = field(default_factory=set)


@dataclass(frozen=True)
class ProjectPair:
    """A project on both sides.

    `dest_id` is None if the project could not be created; `name` is that of its files in the run.
    """

    source: JsonObject
    dest_id: Optional[str]
    name: str
