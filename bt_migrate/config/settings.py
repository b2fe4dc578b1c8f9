"""Every setting, from the environment, `.env` and flags, frozen. Flags win over the environment, the environment over `.env`.

The table below is the one place where a setting is named; `.env.example` and the README are kept equal to it by tests.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from dotenv import dotenv_values

from bt_migrate.config.values import (
    DEFAULT_URL,
    KEEP,
    _duration,
    _format,
    _level,
    _most_deletes,
    _names,
    _not_negative,
    _policies,
    _positive,
    _ratio,
    _renames,
    _resources,
    _seconds,
    _switch,
    _text,
    _unit,
    _url,
    _zone,
)
from bt_migrate.errors import UsageError
from bt_migrate.model.date_windows import instant, is_relative, last_full, window_bound, zone_of
from bt_migrate.model.resources import ROW_KINDS


@dataclass(frozen=True)
class Setting:
    """One setting: its field here, its name in the environment, default as text, how it is read, and one line for people."""

    field: str
    env: str
    default: str
    read: Callable[[str, str], Any]
    about: str


TABLE: Tuple[Setting, ...] = (
    Setting("source_api_key", "BT_SOURCE_API_KEY", "", _text, "API key of the organization to move from (read rights suffice)"),
    Setting("source_url", "BT_SOURCE_URL", DEFAULT_URL, _url, "API URL of the source's data plane"),
    Setting("dest_api_key", "BT_DEST_API_KEY", "", _text, "API key of the organization to move into (write rights)"),
    Setting("dest_url", "BT_DEST_URL", DEFAULT_URL, _url, "API URL of the destination's data plane"),
    Setting("source_org", "BT_SOURCE_ORG", "", _text, "name of the source organization, where the key sees several"),
    Setting("dest_org", "BT_DEST_ORG", "", _text, "name of the destination organization, where the key sees several"),
    Setting("log_level", "LOG_LEVEL", "INFO", _level, "DEBUG, INFO, WARNING or ERROR"),
    Setting("log_format", "LOG_FORMAT", "text", _format, "text, or json for one JSON object per line"),
    Setting("resources", "MIGRATION_RESOURCES", "all", _resources, "comma-separated resources to move"),
    Setting("projects", "MIGRATION_PROJECTS", "", _names, "comma-separated names of source projects; empty for all"),
    Setting("batch_size", "MIGRATION_BATCH_SIZE", "100", _positive, "objects per list page and per batch of creations"),
    Setting("retry_attempts", "MIGRATION_RETRY_ATTEMPTS", "3", _not_negative, "retries of a failed request; 0 fails fast"),
    Setting("retry_delay", "MIGRATION_RETRY_DELAY", "1.0", _seconds, "seconds before the first retry; doubles with each"),
    Setting("max_concurrent", "MIGRATION_MAX_CONCURRENT", "10", _positive, "requests in flight per organization"),
    Setting(
        "checkpoint_interval", "MIGRATION_CHECKPOINT_INTERVAL", "50", _positive,
        "objects (a twentieth of very many) or row batches between checkpoints",
    ),  # fmt: skip
    Setting("state_dir", "MIGRATION_STATE_DIR", "./checkpoints", _text, "folder of runs, or a run, or a project in a run"),
    Setting("resume_run_dir", "MIGRATION_RESUME_RUN_DIR", "", _text, "run directory to resume; wins over MIGRATION_STATE_DIR"),
    Setting("fetch_limit", "MIGRATION_EVENTS_FETCH_LIMIT", "1000", _positive, "rows per page read (the API's most is 1000)"),
    Setting("insert_batch_size", "MIGRATION_EVENTS_INSERT_BATCH_SIZE", "1000", _positive, "rows per insert request"),
    Setting("use_seen_db", "MIGRATION_EVENTS_USE_SEEN_DB", "true", _switch, "remember each delivered row in SQLite"),
    Setting("max_request_bytes", "MIGRATION_INSERT_MAX_REQUEST_BYTES", "6291456", _positive, "largest insert request the server takes"),
    Setting("headroom_ratio", "MIGRATION_INSERT_REQUEST_HEADROOM_RATIO", "0.75", _ratio, "part of that size that is used"),
    Setting("attachment_max_bytes", "MIGRATION_ATTACHMENT_MAX_BYTES", "52428800", _positive, "larger attachments stay where they are"),
    Setting("attachments", "MIGRATION_ATTACHMENTS", "true", _switch, "copy the bytes of attachments"),
    Setting("max_row_bytes", "MIGRATION_MAX_ROW_BYTES", "20000000", _positive, "rows above it get their largest fields as attachments"),
    Setting("max_in_flight_bytes", "MIGRATION_MAX_IN_FLIGHT_BYTES", "67108864", _positive, "row bytes read and not yet written"),
    Setting("read_streams", "MIGRATION_READ_STREAMS", "1", _positive, "readers of one large stream; above 1 rows arrive in another order"),
    Setting("btql_per_minute", "MIGRATION_BTQL_PER_MINUTE", "0", _not_negative, "queries a minute and organization; 0 learns it from 429s"),
    Setting("preserve_order", "MIGRATION_PRESERVE_ORDER", "false", _switch, "insert one batch after the other, in the source's order"),
    Setting("on_conflict", "MIGRATION_ON_CONFLICT", KEEP, _policies, "keep, update or fail where an object exists with other content"),
    Setting("rename_projects", "MIGRATION_RENAME_PROJECTS", "", _renames, "comma-separated Old=New: names of projects in the destination"),
    Setting("keep_public", "MIGRATION_KEEP_PUBLIC", "false", _switch, "leave public experiments public; else they are moved as private"),
    Setting("verify_sample", "MIGRATION_VERIFY_SAMPLE", "100", _not_negative, "rows of each stream that verify compares beside the counts"),
    Setting("verify_wait", "MIGRATION_VERIFY_WAIT", "30", _seconds, "seconds that verify waits for rows that are not shown yet"),
    Setting("created_after", "MIGRATION_CREATED_AFTER", "", _text, "only logs and experiments created at or after this date"),
    Setting("created_before", "MIGRATION_CREATED_BEFORE", "", _text, "only logs and experiments created before this date"),
    Setting("window", "MIGRATION_WINDOW", "", _unit, "daily or hourly: only what was created in the last full day or hour"),
    Setting("tz", "MIGRATION_TZ", "UTC", _zone, "time zone of days, hours and dates without one (Europe/Berlin, +01:00)"),
    Setting("max_duration", "MIGRATION_MAX_DURATION", "0", _duration, "stop cleanly after this time (90, 30m, 2h); 0 for none"),
    Setting("lookback", "MIGRATION_LOOKBACK", "10m", _duration, "how far before the last mark --since-last reads once more"),
    Setting("propagate_deletes", "MIGRATION_PROPAGATE_DELETES", "false", _switch, "with --since-last, delete rows that the source deleted"),
    Setting("max_deletes", "MIGRATION_MAX_DELETES", "1%", _most_deletes, "most rows to delete without --yes: a share or a number"),
    Setting("wait_lock", "MIGRATION_WAIT_LOCK", "0", _duration, "how long to wait for a run that another process holds"),
)  # fmt: skip

ROW_SETTINGS = ("fetch_limit", "insert_batch_size", "use_seen_db")  # overridable per kind of rows
ROW_OVERRIDES: Tuple[Setting, ...] = tuple(
    replace(
        setting,
        field=f"{kind.name}.{setting.field}",
        env=setting.env.replace("EVENTS", kind.setting),
        default="",
        about=f"{setting.about}: for {kind.name} only",
    )
    for kind in ROW_KINDS.values()
    for setting in TABLE
    if setting.field in ROW_SETTINGS
)


SWITCHES = (
    "dry_run", "new_run", "since_last", "full", "counts", "fail_on_loss", "fill_gaps", "quiet", "json", "yes", "changed", "no_rows",
)  # fmt: skip  # flags only


@dataclass(frozen=True)
class RowSettings:
    """How rows of one kind are read and written."""

    fetch_limit: int
    insert_batch_size: int
    use_seen_db: bool
    max_batch_bytes: int


@dataclass(frozen=True)
class Settings:
    """All settings of one process. Keys are kept out of `repr`."""

    source_api_key: str = field(repr=False)
    dest_api_key: str = field(repr=False)
    source_url: str
    dest_url: str
    source_org: str
    dest_org: str
    log_level: str
    log_format: str
    resources: Tuple[str, ...]
    projects: Tuple[str, ...]
    batch_size: int
    retry_attempts: int
    retry_delay: float
    max_concurrent: int
    checkpoint_interval: int
    state_dir: str
    resume_run_dir: str
    fetch_limit: int
    insert_batch_size: int
    use_seen_db: bool
    max_request_bytes: int
    headroom_ratio: float
    attachment_max_bytes: int
    attachments: bool
    max_row_bytes: int
    max_in_flight_bytes: int
    read_streams: int
    btql_per_minute: int
    preserve_order: bool
    keep_public: bool
    verify_sample: int
    verify_wait: float
    created_after: Optional[str]  # absolute, in UTC
    created_before: Optional[str]
    window: str
    tz: str
    max_duration: float
    lookback: float
    propagate_deletes: bool
    max_deletes: str
    wait_lock: float
    on_conflict: Mapping[str, str] = field(
        default_factory=dict
    )  # resource -> policy, of every kind of object
    rename_projects: Mapping[str, str] = field(
        default_factory=dict
    )  # source name -> destination name
    overrides: Mapping[str, Any] = field(default_factory=dict)
    dry_run: bool = False
    new_run: bool = False
    since_last: bool = False
    full: bool = False  # verification reads every row
    yes: bool = False  # undo deletes, a sync deletes more than max_deletes
    changed: bool = False  # … also what was changed since
    counts: bool = False  # verification reads no row
    verify: bool = True  # migrate-all compares at the end
    fail_on_loss: bool = False  # stop before the first write where the plan leaves something behind
    plan_out: str = ""  # where the plan is written, as JSON
    fill_gaps: bool = False
    quiet: bool = False
    json: bool = False
    relative_window: str = ""  # as it was asked for, where it means another window at another time
    no_rows: bool = False  # objects only, and nothing that comes after rows
    shard: Mapping[str, Any] = field(default_factory=dict)  # only these rows; see shards.py
    shards: int = 0  # how many are to be planned
    arguments: Tuple[str, ...] = ()  # of the program, as they were given

    def rows(self, kind: str) -> RowSettings:
        """The row settings of a kind, its own overrides first."""
        chosen = {
            name: self.overrides.get(f"{kind}.{name}", getattr(self, name)) for name in ROW_SETTINGS
        }
        return RowSettings(
            max_batch_bytes=int(self.max_request_bytes * self.headroom_ratio), **chosen
        )

    @property
    def depth(self) -> str:
        """How deep rows are compared: full, sample (beside the counts) or counts."""
        if self.full:
            return "full"
        return "sample" if self.verify_sample and not self.counts else "counts"

    @property
    def part(self) -> str:
        """Which part of a move this is that runs in parts, "" for all of it."""
        return shard_name(self.shard) if self.shard else "objects" if self.no_rows else ""

    def may_delete(self, rows: int) -> int:
        """How many rows out of so many a sync may delete without being told so."""
        share = self.max_deletes.endswith("%")
        return int(rows * float(self.max_deletes[:-1]) / 100) if share else int(self.max_deletes)

    def selects(self, resource: str) -> bool:
        return resource in self.resources


def shard_name(shard: Mapping[str, Any]) -> str:
    return f"shard {shard['number']} of {shard['of']} of plan {shard['plan']}"


def load_settings(
    flags: Mapping[str, Any],
    environ: Optional[Mapping[str, str]] = None,
    now: Optional[datetime] = None,
) -> Settings:
    """Settings from flags (field -> text or None), the environment and the `.env` file; relative dates are counted from `now`.

    `flags["env_file"]` names the file; without it `.env` in the current folder is read if it is there. Raises UsageError naming
    the setting at fault; its value is never a key.
    """
    env = _environment(flags.get("env_file")) if environ is None else environ
    given = {name: value for name, value in flags.items() if value not in (None, False)}
    given.update({"attachments": "false"} if "no_attachments" in given else {})
    given.update(
        {
            name: "true"
            for name in ("preserve_order", "keep_public", "propagate_deletes")
            if name in given
        }
    )
    given = {
        **({"log_level": "ERROR"} if "quiet" in given else {}),
        **({"log_format": "json"} if "json" in given else {}),
        **given,
    }
    values = {setting.field: _value(setting, given.get(setting.field), env) for setting in TABLE}
    general = {
        s.field: s.field.split(".")[-1] for s in ROW_OVERRIDES
    }  # a flag of the general setting wins over the environment's own
    overrides = {
        s.field: _value(s, None, env)
        for s in ROW_OVERRIDES
        if general[s.field] not in given and env.get(s.env, "").strip()
    }
    _check_keys(values)
    depths = sum(name in given for name in ("counts", "full", "verify_sample"))
    if depths > 1:
        raise UsageError("--counts, --sample and --full: choose one")
    values.update(_window(values, given, now or datetime.now(timezone.utc)))
    values.update({name: bool(flags.get(name)) for name in SWITCHES})
    values["plan_out"] = _plan_file(flags.get("plan_out") or "")
    values["shards"] = _positive("--shards", given["shards"]) if "shards" in given else 0
    if values["since_last"] and values["no_rows"]:
        raise UsageError("--since-last goes on in a run with rows: leave out --no-rows")
    if values["since_last"]:
        _refuse_windows(values)
    compares = not flags.get("no_verify") and bool(
        depths or not values["since_last"]
    )  # a sync compares only when told to
    return Settings(overrides=overrides, verify=compares, **values)


def _refuse_windows(values: Mapping[str, Any]) -> None:
    """A sync takes everything since the last one, in the run of the last one."""
    if values["new_run"]:
        raise UsageError("--since-last goes on in the last run, --new-run begins one: choose one")
    if values["created_after"] or values["created_before"] or values["fill_gaps"]:
        raise UsageError(
            "--since-last takes whatever was written since the last sync: leave out --window, --created-after, --created-before"
            " and --fill-gaps (and MIGRATION_WINDOW, MIGRATION_CREATED_AFTER, MIGRATION_CREATED_BEFORE)"
        )


def _plan_file(path: str) -> str:
    folder = Path(path).absolute().parent
    if path and (not folder.is_dir() or not os.access(folder, os.W_OK) or Path(path).is_dir()):
        raise UsageError(f"--plan-out: {path} cannot be written as a file")
    return path


def state_dir_of(env_file: Optional[str] = None) -> str:
    """Where the runs are, for who only looks at them and needs no key."""
    env = _environment(env_file)
    state_dir = next(one for one in TABLE if one.field == "state_dir")
    return env.get("MIGRATION_RESUME_RUN_DIR", "").strip() or str(_value(state_dir, None, env))


def _window(values: Mapping[str, Any], given: Mapping[str, Any], now: datetime) -> Dict[str, Any]:
    """The bounds that were asked for as absolute ones, and how they were asked for if that is relative."""
    after, before, unit, zone = (
        values["created_after"],
        values["created_before"],
        values["window"],
        zone_of("--tz", values["tz"]),
    )
    if unit:
        if after or before:
            raise UsageError(
                "--window chooses both ends: leave out --created-after and --created-before"
            )
        begin, end = last_full(unit, now, zone)
        return {
            "created_after": begin,
            "created_before": end,
            "relative_window": f"{unit} in {values['tz']}",
        }
    after_name, before_name = (
        "--" + one.replace("_", "-") if one in given else f"MIGRATION_{one.upper()}"
        for one in ("created_after", "created_before")
    )
    bounds = (
        window_bound(after_name, after, now, zone),
        window_bound(before_name, before, now, zone),
    )
    if bounds[0] and bounds[1] and instant(bounds[0]) >= instant(bounds[1]):
        raise UsageError(
            "MIGRATION_CREATED_AFTER is not before MIGRATION_CREATED_BEFORE: the window is empty"
        )
    relative = (
        f"{after or 'the beginning'} to {before or 'now'} in {values['tz']}"
        if is_relative(after) or is_relative(before)
        else ""
    )
    return {"created_after": bounds[0], "created_before": bounds[1], "relative_window": relative}


def _value(setting: Setting, flag: Optional[str], env: Mapping[str, str]) -> Any:
    text = flag if flag is not None else env.get(setting.env, "").strip() or setting.default
    name = (
        setting.env
        if flag is None
        else "--" + setting.field.replace("verify_", "").replace("_", "-")
    )
    return setting.read(name, text)


def _environment(env_file: Optional[str]) -> Dict[str, str]:
    path = Path(env_file or ".env")
    if env_file and not path.is_file():
        raise UsageError(f"--env-file: there is no file {env_file}")
    try:
        # interpolate off: a `$` in a key is a `$`
        from_file = (
            dotenv_values(path, interpolate=False, encoding="utf-8-sig") if path.is_file() else {}
        )
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as an .env file: {error}") from None
    merged = {name: value for name, value in from_file.items() if value is not None}
    merged.update({name: value for name, value in os.environ.items() if value.strip()})
    return merged


def _check_keys(values: Mapping[str, Any]) -> None:
    for name in ("source_api_key", "dest_api_key"):
        setting = next(one for one in TABLE if one.field == name)
        key = values[name]
        if not key:
            raise UsageError(
                f"{setting.env} is not set; put it into .env or the environment (keys are never flags)"
            )
        if not key.isascii() or any(char.isspace() or not char.isprintable() for char in key):
            raise UsageError(
                f"{setting.env} holds a character that no key has (a space or a line break?)"
            )


def env_names() -> List[str]:
    """Every name that is read from the environment, in the order of the table."""
    return [setting.env for setting in (*TABLE, *ROW_OVERRIDES)]
