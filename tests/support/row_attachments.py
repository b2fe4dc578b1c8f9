"""Rows with attachments."""

from __future__ import annotations

from typing import Any, Dict

from tests.support.row_runs import World

LOGS = "project_logs"
PICTURE = bytes(range(256)) * 50


def attach(w: World, data: bytes = PICTURE, name: str = "a.png") -> Dict[str, Any]:
    reference: Dict[str, Any] = w.source.attach(data, filename=name, content_type="image/png")
    return reference


def dest_row(w: World, row_id: str) -> Dict[str, Any]:
    return next(row for row in w.dest.rows(LOGS, w.twin(LOGS, w.project)) if row["id"] == row_id)
