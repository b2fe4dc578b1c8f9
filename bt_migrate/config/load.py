"""Read the settings: options win over the environment, the environment wins over `.env`."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from dotenv import dotenv_values

from bt_migrate.config import values
from bt_migrate.config.bounded import read_text_bounded
from bt_migrate.config.declare import Setting
from bt_migrate.config.settings import (
    ALL_SETTINGS,
    ROW_OVERRIDES,
    TABLE,
    UNRECORDED_VARIABLES,
    Settings,
)
from bt_migrate.errors import UsageError
from bt_migrate.model.date_windows import instant, is_relative, last_full, window_bound, zone_of
from bt_migrate.model.resources import ROW_KINDS, SELECTABLE
from bt_migrate.model.selection import did_you_mean

NAMED = {setting.field: setting for setting in ALL_SETTINGS}
# Variables share the prefix MIGRATION_, so suggestions need a higher similarity.
PREFIXED_SIMILARITY = 0.85
# Readers of values in which " #" may be part of a name.
MAY_HOLD_HASH = (values.plain_text, values.names, values.project_renames)
COMMENT = re.compile(r"\s*#(\s|$)")


def load_settings(
    options: Mapping[str, Any],
    environ: Optional[Mapping[str, str]] = None,
    now: Optional[datetime] = None,
) -> Settings:
    """Settings from options (dest -> text, True, or None), the environment and the `.env` file.
    Relative dates are counted from `now`.

    `options["env_file"]` names the file; without it `.env` in the current folder is read if it
    exists. A given `environ` replaces both. Raises UsageError naming the setting; a key is never
    shown.
    """
    env = _environment(options.get("env_file")) if environ is None else environ
    given = {name: value for name, value in options.items() if value not in (None, False)}
    if "quiet" in given:
        given.setdefault("log_level", "ERROR")
    if "verbose" in given:
        given.setdefault("log_level", "DEBUG")
    if "json" in given:
        given.setdefault("log_format", "json")
    value_of = {setting.field: _value(setting, given, env) for setting in ALL_SETTINGS}
    _check_keys(value_of)
    depths = sum(name in given for name in ("counts", "full", "verify_sample"))
    _refuse_useless(given, value_of, depths)
    named = value_of["resources"]
    value_of["named_resources"] = named if len(named) < len(SELECTABLE) else ()
    value_of["resources"] = _without_excluded(value_of)
    value_of.update(_window(value_of, given, now or datetime.now(timezone.utc)))
    value_of["depth_given"] = bool(depths)
    if value_of["since_last"]:
        _check_sync(value_of)
        value_of["on_conflict"] = _policies_of_sync(given, env)
    return Settings(
        overrides=_overrides(given, env),
        changed_settings=_changed_settings(given, env),
        warnings=_unknown_variables(env),
        **value_of,
    )


def state_dir_of(env_file: Optional[str] = None) -> str:
    """Returns the folder of runs, for programs that need no key."""
    env = _environment(env_file)
    resumed = str(_value(NAMED["resume_run_dir"], {}, env))
    return resumed or str(_value(NAMED["state_dir"], {}, env))


@dataclass(frozen=True)
class Connection:
    """URL, key and name of one organization. `setting` is the prefix of its variables."""

    side: str
    setting: str
    url: str
    key: str
    org: str

    def __repr__(self) -> str:
        return f"Connection({self.side}, {self.url})"


def connection_of(side: str, env_file: Optional[str] = None) -> Connection:
    """Returns the connection to one side, for programs that need one key only.

    Raises UsageError.
    """
    env = _environment(env_file)
    prefix = "source" if side == "source" else "dest"
    parts = {
        name: str(_value(NAMED[f"{prefix}_{name}"], {}, env)) for name in ("url", "api_key", "org")
    }
    _check_key(NAMED[f"{prefix}_api_key"].env, parts["api_key"])
    setting = f"BT_{prefix.upper()}"
    return Connection(side, setting, parts["url"], parts["api_key"], parts["org"])


def app_urls_of(env_file: Optional[str] = None) -> Dict[str, str]:
    """Returns the URLs of the user interfaces by side, for programs that need no key."""
    env = _environment(env_file)
    return {
        "source": str(_value(NAMED["source_app_url"], {}, env)),
        "destination": str(_value(NAMED["dest_app_url"], {}, env)),
    }


def _value(setting: Setting, given: Mapping[str, Any], env: Mapping[str, str]) -> Any:
    text = setting.text_in(given)
    if text is not None:
        return setting.read(setting.flag, text)
    return setting.read(setting.name, _text_in_env(setting, env) or setting.default)


def _text_in_env(setting: Setting, env: Mapping[str, str]) -> str:
    return _without_comment(setting, env.get(setting.env, "")) if setting.env else ""


def _changed_settings(given: Mapping[str, Any], env: Mapping[str, str]) -> Dict[str, str]:
    """Returns variable -> text of the settings that do not have their defaults, no secrets.

    The text is "" for a variable of .env that an empty one of the environment hides.
    """
    texts = {
        setting: setting.text_in(given) or _text_in_env(setting, env)
        for setting in (*TABLE, *ROW_OVERRIDES)
        if setting.env not in UNRECORDED_VARIABLES
    }
    return {
        setting.env: text
        for setting, text in texts.items()
        if text not in ("", setting.default) or not env.get(setting.env, "not set").strip()
    }


def _without_comment(setting: Setting, text: str) -> str:
    """Returns the value without a comment at its end.

    python-dotenv before 1.0 keeps the comment after an empty value, and `docker --env-file` keeps
    all comments.
    """
    if COMMENT.match(text):
        return ""
    if setting.read in MAY_HOLD_HASH:
        return text.strip()
    return text.partition(" #")[0].strip()


# -- refused combinations

WINDOW = ("window", "created_after", "since_last")
# Option, the settings of which it needs one, and how a message names these.
NEEDED_OPTIONS: Sequence[Tuple[str, Sequence[str], str]] = (
    ("propagate_deletes", ("since_last",), "--since-last"),
    ("max_deletes", ("since_last",), "--since-last"),
    ("max_deletes", ("propagate_deletes",), "--propagate-deletes"),
    ("lookback", ("since_last",), "--since-last"),
    # bin/undo, whose run is `resume_run_dir`, has a --yes of its own and no --invite-users.
    ("yes", ("invite_users", "resume_run_dir"), "--invite-users"),
    ("send_invites", ("invite_users",), "--invite-users"),
    ("fill_gaps", WINDOW, "--window or --created-after"),
    ("tz", (*WINDOW, "created_before"), "--window or a date"),
)
# Options that do nothing without rows, and options with the resources that they need.
ROW_OPTIONS = ("propagate_deletes", "read_streams", "preserve_order")
NEEDED_RESOURCES: Dict[str, Sequence[str]] = {
    **dict.fromkeys((*ROW_OPTIONS, "no_rows"), tuple(ROW_KINDS)),
    "dataset_versions": ("datasets",),
    "keep_public": ("experiments",),
    "history": ("prompts", "functions"),
    "bundles": ("functions",),
    "activate": ("project_automations", "org_automations"),
}


def _refuse_useless(given: Mapping[str, Any], value_of: Mapping[str, Any], depths: int) -> None:
    """Raises UsageError for options that have no effect, or that contradict each other."""
    if depths > 1:
        raise UsageError("--counts, --sample and --full: choose one")
    if depths and not value_of["verify"]:
        raise UsageError("--no-verify: leave it out, or leave out --counts, --sample and --full")
    for name, needed, flags in NEEDED_OPTIONS:
        if name in given and not any(value_of[other] for other in needed):
            raise UsageError(f"{NAMED[name].flag} does something only with {flags}")
    _refuse_contradictions(given, value_of)
    _refuse_without_target(given, value_of)


def _refuse_contradictions(given: Mapping[str, Any], value_of: Mapping[str, Any]) -> None:
    """Raises UsageError for options that contradict each other."""
    if "plan" in given and ("dry_run" in given or "plan_out" in given):
        raise UsageError("--plan carries a plan out: leave out --dry-run and --plan-out")
    if value_of["dataset_versions"] and (value_of["shards"] or "shard" in given):
        raise UsageError(
            "--dataset-versions: earlier states of datasets are not made in shards; leave it out"
            " (and MIGRATION_DATASET_VERSIONS), or move without shards"
        )
    if "dataset_versions" in given and value_of["no_rows"]:
        raise UsageError("--dataset-versions writes rows: leave out --no-rows")
    if "quiet" in given and "verbose" in given:
        raise UsageError("--quiet and --verbose: choose one")
    if "verbose" in given and value_of["log_level"] != "DEBUG":
        raise UsageError("--verbose and --log-level: choose one")
    if {"preserve_order", "read_streams"} <= given.keys() and value_of["read_streams"] > 1:
        raise UsageError("--preserve-order needs one reader: leave out --read-streams")


def _refuse_without_target(given: Mapping[str, Any], value_of: Mapping[str, Any]) -> None:
    """Raises UsageError for options about resources that are not selected."""
    selected = {*value_of["resources"]} - {*value_of["exclude_resources"]}
    for name, resources in NEEDED_RESOURCES.items():
        if name in given and not selected.intersection(resources):
            raise UsageError(
                f"{NAMED[name].flag} does something only with {' or '.join(resources)}:"
                " these are not selected"
            )
    for name in ROW_OPTIONS:
        if name in given and value_of["no_rows"]:
            raise UsageError(f"{NAMED[name].flag} does something only with rows: --no-rows")


def _without_excluded(value_of: Mapping[str, Any]) -> Tuple[str, ...]:
    selected = tuple(
        name for name in value_of["resources"] if name not in value_of["exclude_resources"]
    )
    if not selected:
        raise UsageError("--exclude-resources: nothing is left of --resources")
    return selected


def unknown_variables(env_file: Optional[str] = None) -> Tuple[str, ...]:
    """Returns a warning for each variable that looks like a setting and is none.

    For programs that use single settings; `load_settings` returns them with the settings.
    """
    return _unknown_variables(_environment(env_file))


def _unknown_variables(env: Mapping[str, str]) -> Tuple[str, ...]:
    variables = {setting.env for setting in (*TABLE, *ROW_OVERRIDES)}
    hints = {
        name: did_you_mean(name, variables, PREFIXED_SIMILARITY)
        for name in sorted(env)
        if name not in variables and name.startswith(("MIGRATION_", "BT_SOURCE_", "BT_DEST_"))
    }
    return tuple(
        f"{name} is not a setting and is ignored{hint}"
        for name, hint in hints.items()
        if hint or name.startswith("MIGRATION_")
    )


def _policies_of_sync(given: Mapping[str, Any], env: Mapping[str, str]) -> Dict[str, str]:
    """Returns the policies of a sync, whose default is `follow`."""
    setting = NAMED["on_conflict"]
    text = setting.text_in(given) or _text_in_env(setting, env) or values.FOLLOW_POLICY
    return values.conflict_policies(setting.name, text, values.FOLLOW_POLICY)


def _overrides(given: Mapping[str, Any], env: Mapping[str, str]) -> Dict[str, Any]:
    """Returns the settings for single kinds of rows. An option for all kinds wins over them."""
    return {
        setting.field: _value(setting, {}, env)
        for setting in ROW_OVERRIDES
        if setting.field.split(".")[-1] not in given and _text_in_env(setting, env)
    }


def _check_sync(value_of: Mapping[str, Any]) -> None:
    """Raises UsageError for options that contradict --since-last.

    A sync continues the last run, and reads everything since the last sync.
    """
    if value_of["no_rows"]:
        raise UsageError("--since-last continues a run with rows: leave out --no-rows")
    if value_of["new_run"]:
        raise UsageError("--since-last continues the last run, --new-run starts one: choose one")
    if value_of["created_after"] or value_of["created_before"] or value_of["fill_gaps"]:
        raise UsageError(
            "--since-last takes everything written since the last sync: leave out --window,"
            " --created-after, --created-before and --fill-gaps (and MIGRATION_WINDOW,"
            " MIGRATION_CREATED_AFTER, MIGRATION_CREATED_BEFORE)"
        )


def _window(value_of: Mapping[str, Any], given: Mapping[str, Any], now: datetime) -> Dict[str, Any]:
    """Returns the bounds as absolute dates, and as text if they were given as relative dates."""
    after = value_of["created_after"] or ""
    before = value_of["created_before"] or ""
    unit = value_of["window"]
    zone = zone_of("--tz", value_of["tz"])
    if unit:
        if after or before:
            raise UsageError(
                "--window chooses both ends: leave out --created-after and --created-before"
            )
        first, last = last_full(unit, now, zone)
        words = f"{unit} in {value_of['tz']}"
        return {"created_after": first, "created_before": last, "relative_window": words}
    begin = window_bound(_shown_name("created_after", given), after, now, zone)
    end = window_bound(_shown_name("created_before", given), before, now, zone)
    if begin and end and instant(begin) >= instant(end):
        names = [_shown_name(field, given) for field in ("created_after", "created_before")]
        raise UsageError(f"{names[0]} ({after}) must be before {names[1]} ({before})")
    relative = is_relative(after) or is_relative(before)
    bounds = f"{after or 'the beginning'} to {before or 'now'} in {value_of['tz']}"
    words = bounds if relative else ""
    return {"created_after": begin, "created_before": end, "relative_window": words}


def _shown_name(field: str, given: Mapping[str, Any]) -> str:
    return NAMED[field].flag if field in given else NAMED[field].env


def _environment(env_file: Optional[str]) -> Dict[str, str]:
    path = Path(env_file or ".env")
    is_there = path.exists() and not path.is_dir()
    if env_file and not is_there:
        problem = f"{env_file} is a folder" if path.is_dir() else f"there is no file {env_file}"
        raise UsageError(f"--env-file: {problem}")
    from_file: Mapping[str, Optional[str]] = {}
    try:
        if is_there:
            text = io.StringIO(read_text_bounded(path, encoding="utf-8-sig"))
            # without interpolation, because a key may contain `$`
            from_file = dotenv_values(stream=text, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read as an .env file: {reason}") from None
    merged = {name: value for name, value in from_file.items() if value and value.strip()}
    for name, value in os.environ.items():
        # An empty variable hides the one of the file; a secret that a script did not set does not.
        if value.strip() or (name in merged and name.startswith("MIGRATION_")):
            merged[name] = value
    return merged


def _check_keys(value_of: Mapping[str, Any]) -> None:
    for name in ("source_api_key", "dest_api_key"):
        _check_key(NAMED[name].env, value_of[name])


def _check_key(env: str, key: str) -> None:
    if not key:
        raise UsageError(
            f"{env} is not set; put it into .env or the environment (keys are never flags)"
        )
    if not key.isascii() or any(char.isspace() or not char.isprintable() for char in key):
        raise UsageError(f"{env} holds a character that no key has (a space or a line break?)")
