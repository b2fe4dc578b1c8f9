"""The settings that no run does without, all defaults, and how tests load settings."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from bt_migrate.config.load import load_settings
from bt_migrate.config.settings import Settings
from bt_migrate.model.resources import SELECTABLE

KEYS = {"BT_SOURCE_API_KEY": "sk-source", "BT_DEST_API_KEY": "sk-dest"}
REQUIRED = ["BT_SOURCE_API_KEY", "BT_DEST_API_KEY"]
DEFAULTS: Dict[str, Any] = {
    "source_api_key": "sk-source",
    "dest_api_key": "sk-dest",
    "source_url": "https://api.braintrust.dev",
    "dest_url": "https://api.braintrust.dev",
    "source_org": "",
    "dest_org": "",
    "log_level": "INFO",
    "log_format": "text",
    "resources": SELECTABLE,
    "projects": (),
    "batch_size": 100,
    "retry_attempts": 3,
    "retry_delay": 1.0,
    "max_concurrent": 10,
    "checkpoint_interval": 50,
    "state_dir": "./checkpoints",
    "resume_run_dir": "",
    "fetch_limit": 1000,
    "insert_batch_size": 1000,
    "use_seen_db": True,
    "max_request_bytes": 6291456,
    "headroom_ratio": 0.75,
    "attachment_max_bytes": 52428800,
    "attachments": True,
    "max_row_bytes": 20_000_000,
    "max_in_flight_bytes": 67_108_864,
    "read_streams": 1,
    "btql_per_minute": 0,
    "rate_limit_tries": 100,
    "max_retry_after": 900.0,
    "preserve_order": False,
    "keep_public": False,
    "verify_sample": 100,
    "verify_wait": 30.0,
    "created_after": None,
    "created_before": None,
    "window": "",
    "tz": "UTC",
    "max_duration": 0.0,
    "wait_lock": 0.0,
    "lookback": 600.0,
    "propagate_deletes": False,
    "max_deletes": "1%",
    "on_conflict": dict.fromkeys(("projects", *SELECTABLE), "keep"),
    "rename_projects": {},
}


def loaded(environ: Mapping[str, str], **flags: Any) -> Settings:
    return load_settings(flags, {**KEYS, **environ})
