"""Settings: how each value is read, and what is refused."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import Any, Dict, List, Tuple

import pytest

from bt_migrate.config.load import load_settings
from bt_migrate.config.settings import TABLE, RowSettings, Settings
from bt_migrate.errors import EXIT_USAGE, UsageError
from bt_migrate.model.resources import SELECTABLE
from tests.support.settings import DEFAULTS, KEYS, REQUIRED, loaded

# -- values


def test_the_defaults_are_those_of_the_manual() -> None:
    assert loaded({}) == Settings(**DEFAULTS)


@pytest.mark.parametrize(
    ("name", "text", "field", "expected"),
    [
        (
            "BT_SOURCE_URL",
            "https://api-eu.braintrust.dev/",
            "source_url",
            "https://api-eu.braintrust.dev",
        ),
        (
            "BT_DEST_URL",
            "http://127.0.0.1:8000/prefix//",
            "dest_url",
            "http://127.0.0.1:8000/prefix",
        ),
        ("BT_SOURCE_ORG", "Acme, Inc.", "source_org", "Acme, Inc."),
        ("BT_DEST_ORG", " acme ", "dest_org", "acme"),
        ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("LOG_FORMAT", "JSON", "log_format", "json"),
        (
            "MIGRATION_RESOURCES",
            "logs, datasets",
            "resources",
            ("datasets", "logs"),
        ),  # in the order in which they move
        ("MIGRATION_RESOURCES", "logs,all", "resources", SELECTABLE),
        ("MIGRATION_RESOURCES", ",", "resources", SELECTABLE),
        ("MIGRATION_BATCH_SIZE", "1", "batch_size", 1),
        ("MIGRATION_RETRY_ATTEMPTS", "0", "retry_attempts", 0),
        ("MIGRATION_RETRY_DELAY", "0.25", "retry_delay", 0.25),
        ("MIGRATION_RETRY_DELAY", "0", "retry_delay", 0.0),
        ("MIGRATION_MAX_CONCURRENT", "1", "max_concurrent", 1),
        ("MIGRATION_CHECKPOINT_INTERVAL", "7", "checkpoint_interval", 7),
        ("MIGRATION_STATE_DIR", "/tmp/runs", "state_dir", "/tmp/runs"),
        ("MIGRATION_RESUME_RUN_DIR", "runs/1", "resume_run_dir", "runs/1"),
        ("MIGRATION_EVENTS_FETCH_LIMIT", "10", "fetch_limit", 10),
        ("MIGRATION_EVENTS_INSERT_BATCH_SIZE", "11", "insert_batch_size", 11),
        ("MIGRATION_EVENTS_USE_SEEN_DB", "no", "use_seen_db", False),
        ("MIGRATION_EVENTS_USE_SEEN_DB", "On", "use_seen_db", True),
        ("MIGRATION_INSERT_MAX_REQUEST_BYTES", "1000", "max_request_bytes", 1000),
        ("MIGRATION_INSERT_REQUEST_HEADROOM_RATIO", "1", "headroom_ratio", 1.0),
        ("MIGRATION_ATTACHMENT_MAX_BYTES", "5", "attachment_max_bytes", 5),
        ("MIGRATION_ATTACHMENTS", "False", "attachments", False),
        ("MIGRATION_MAX_ROW_BYTES", "1", "max_row_bytes", 1),
        ("MIGRATION_MAX_IN_FLIGHT_BYTES", "1", "max_in_flight_bytes", 1),
        ("MIGRATION_READ_STREAMS", "4", "read_streams", 4),
        ("MIGRATION_BTQL_PER_MINUTE", "20", "btql_per_minute", 20),
        ("MIGRATION_RATE_LIMIT_TRIES", "5", "rate_limit_tries", 5),
        ("MIGRATION_MAX_RETRY_AFTER", "2m", "max_retry_after", 120.0),
        ("MIGRATION_PRESERVE_ORDER", "yes", "preserve_order", True),
        (
            "MIGRATION_ON_CONFLICT",
            "update",
            "on_conflict",
            {**DEFAULTS["on_conflict"], **dict.fromkeys(DEFAULTS["on_conflict"], "update")},
        ),
        (
            "MIGRATION_ON_CONFLICT",
            "prompts=update, datasets=keep",
            "on_conflict",
            {**DEFAULTS["on_conflict"], "prompts": "update"},
        ),
        (
            "MIGRATION_ON_CONFLICT",
            "projects=keep,fail",
            "on_conflict",
            {**dict.fromkeys(DEFAULTS["on_conflict"], "fail"), "projects": "keep"},
        ),
        ("MIGRATION_RENAME_PROJECTS", "Old=New", "rename_projects", {"Old": "New"}),
        (
            "MIGRATION_RENAME_PROJECTS",
            '"a, b=c, d",e\\=f=g/h, Zoë=日本',
            "rename_projects",
            {"a, b": "c, d", "e=f": "g/h", "Zoë": "日本"},
        ),
        ("MIGRATION_KEEP_PUBLIC", "yes", "keep_public", True),
        ("MIGRATION_HISTORY", "all", "history", 10**9),
        ("MIGRATION_HISTORY", "3", "history", 3),
        ("MIGRATION_VERIFY_SAMPLE", "0", "verify_sample", 0),
        ("MIGRATION_VERIFY_WAIT", "0.5", "verify_wait", 0.5),
        ("MIGRATION_CREATED_AFTER", "2026-01-15", "created_after", "2026-01-15T00:00:00Z"),
        (
            "MIGRATION_CREATED_BEFORE",
            "2026-01-15T01:00:00+01:00",
            "created_before",
            "2026-01-15T00:00:00Z",
        ),
        ("MIGRATION_TZ", "+05:30", "tz", "+05:30"),
        ("MIGRATION_MAX_DURATION", "90", "max_duration", 90.0),
        ("MIGRATION_MAX_DURATION", "30m", "max_duration", 1800.0),
        ("MIGRATION_MAX_DURATION", "2h", "max_duration", 7200.0),
        ("MIGRATION_MAX_DURATION", "1.5s", "max_duration", 1.5),
        ("MIGRATION_WAIT_LOCK", "600", "wait_lock", 600.0),
    ],
)
def test_each_setting_is_read_and_changes_nothing_else(
    name: str, text: str, field: str, expected: Any
) -> None:
    is_part = field == "resources" and len(expected) < len(DEFAULTS["resources"])
    named = {"named_resources": expected} if is_part else {}
    assert loaded({name: text}) == Settings(**{**DEFAULTS, field: expected, **named})


def test_the_report_has_the_settings_that_differ_from_their_defaults_without_secrets() -> None:
    environ = {
        "MIGRATION_ON_END": "curl -H secret", "MIGRATION_BATCH_SIZE": "100", "MIGRATION_TZ": "",
        "MIGRATION_MAX_CONCURRENT": "4 # slow", "MIGRATION_LOGS_FETCH_LIMIT": "50", "OTHER": "1",
        "MIGRATION_READ_STREAMS": "2",
    }  # fmt: skip
    settings = loaded(environ, read_streams="8", no_attachments=True)
    assert settings.changed_settings == {
        "MIGRATION_MAX_CONCURRENT": "4", "MIGRATION_READ_STREAMS": "8",
        "MIGRATION_ATTACHMENTS": "false", "MIGRATION_LOGS_FETCH_LIMIT": "50",
        "MIGRATION_TZ": "",  # hides the one of .env
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Alpha", ("Alpha",)),
        ("Alpha,Beta", ("Alpha", "Beta")),
        ("Alpha, Beta", ("Alpha", "Beta")),
        ('"one, with a comma",Beta', ("one, with a comma", "Beta")),
        ('Alpha, "one, with a comma"', ("Alpha", "one, with a comma")),
        ('"say ""hi""",Beta', ('say "hi"', "Beta")),
        ("it's,5\" nails", ("it's", '5" nails')),
        ("Zoë 日本,a/b", ("Zoë 日本", "a/b")),
        ('" leading",Beta', (" leading", "Beta")),
        ("Alpha,,Beta,", ("Alpha", "Beta")),
        ("", ()),
    ],
)
def test_names_are_separated_by_commas_and_one_with_a_comma_is_quoted(
    text: str, expected: Tuple[str, ...]
) -> None:
    assert (loaded({"MIGRATION_PROJECTS": text}).projects, loaded({}, projects=text).projects) == (
        expected,
        expected,
    )


WRONG: List[Tuple[str, str]] = [
    ("BT_SOURCE_URL", "api.braintrust.dev"),
    ("BT_SOURCE_URL", "ftp://api.braintrust.dev"),
    ("BT_SOURCE_URL", "https://"),
    ("BT_SOURCE_URL", "https://[::1"),
    ("BT_SOURCE_URL", "https://host:99999"),
    ("BT_DEST_URL", "https://host:port"),
    ("BT_DEST_URL", "https://user:sk-secret@host"),
    ("BT_DEST_URL", "https://host/path?query=1"),
    ("BT_DEST_URL", "https://host/#fragment"),
    ("BT_SOURCE_APP_URL", "www.braintrust.dev"),
    ("BT_DEST_APP_URL", "ftp://www.braintrust.dev"),
    ("LOG_LEVEL", "LOUD"),
    ("LOG_FORMAT", "xml"),
    ("MIGRATION_RESOURCES", "datasets,datsets"),
    ("MIGRATION_RESOURCES", "projects"),
    ("MIGRATION_ACTIVATE", "all,slak"),
    ("MIGRATION_PROJECTS", '"never closed'),
    ("MIGRATION_PROJECTS", '"a"b'),
    ("MIGRATION_EXCLUDE_PROJECTS", '"never closed'),
    ("MIGRATION_EXCLUDE_RESOURCES", "datsets"),
    ("MIGRATION_BATCH_SIZE", "0"),
    ("MIGRATION_BATCH_SIZE", "-1"),
    ("MIGRATION_BATCH_SIZE", "ten"),
    ("MIGRATION_BATCH_SIZE", "1.5"),
    ("MIGRATION_RETRY_ATTEMPTS", "-1"),
    ("MIGRATION_RETRY_DELAY", "-0.1"),
    ("MIGRATION_RETRY_DELAY", "nan"),
    ("MIGRATION_RETRY_DELAY", "inf"),
    ("MIGRATION_RETRY_DELAY", "1s"),
    ("MIGRATION_MAX_CONCURRENT", "0"),
    ("MIGRATION_CHECKPOINT_INTERVAL", "0"),
    ("MIGRATION_EVENTS_FETCH_LIMIT", "0"),
    ("MIGRATION_EVENTS_INSERT_BATCH_SIZE", "x"),
    ("MIGRATION_EVENTS_USE_SEEN_DB", "maybe"),
    ("MIGRATION_INSERT_MAX_REQUEST_BYTES", "6 MB"),
    ("MIGRATION_INSERT_REQUEST_HEADROOM_RATIO", "0"),
    ("MIGRATION_INSERT_REQUEST_HEADROOM_RATIO", "1.01"),
    ("MIGRATION_ATTACHMENT_MAX_BYTES", "0"),
    ("MIGRATION_ATTACHMENTS", "some"),
    ("MIGRATION_MAX_ROW_BYTES", "0"),
    ("MIGRATION_MAX_IN_FLIGHT_BYTES", "64 MB"),
    ("MIGRATION_READ_STREAMS", "0"),
    ("MIGRATION_BTQL_PER_MINUTE", "-1"),
    ("MIGRATION_METRICS_FILE", "/nowhere/at/all"),
    ("MIGRATION_KEEP_PUBLIC", "perhaps"),
    ("MIGRATION_DATASET_VERSIONS", "2"),
    ("MIGRATION_HISTORY", "some"),
    ("MIGRATION_HISTORY", "0"),
    ("MIGRATION_VERIFY_SAMPLE", "-1"),
    ("MIGRATION_VERIFY_WAIT", "long"),
    ("MIGRATION_PRESERVE_ORDER", "source"),
    ("MIGRATION_USER_MAP", "no/such/file.csv"),
    ("MIGRATION_BUNDLES", "no/such/folder"),
    ("MIGRATION_ON_CONFLICT", "overwrite"),
    ("MIGRATION_ON_CONFLICT", "prompts=replace"),
    ("MIGRATION_ON_CONFLICT", "promts=update"),
    ("MIGRATION_ON_CONFLICT", "rows=update"),
    ("MIGRATION_ON_CONFLICT", "keep;prompts=update"),
    ("MIGRATION_ON_CONFLICT", "keep,fail"),
    ("MIGRATION_ON_CONFLICT", "prompts=keep,datasets=fail,prompts=update"),
    ("MIGRATION_RATE_LIMIT_TRIES", "0"),
    ("MIGRATION_MAX_RETRY_AFTER", "soon"),
    ("MIGRATION_LOOKBACK", "-1"),
    ("MIGRATION_PROPAGATE_DELETES", "maybe"),
    ("MIGRATION_MAX_DELETES", "many"),
    ("MIGRATION_MAX_DELETES", "101%"),
    ("MIGRATION_MAX_DELETES", "-5"),
    ("MIGRATION_RENAME_PROJECTS", "Old"),
    ("MIGRATION_RENAME_PROJECTS", "Old="),
    ("MIGRATION_RENAME_PROJECTS", "=New"),
    ("MIGRATION_RENAME_PROJECTS", "a=b=c"),
    ("MIGRATION_RENAME_PROJECTS", "a=b,a=c"),
    ("MIGRATION_WINDOW", "weekly"),
    ("MIGRATION_WINDOW", "Daily"),
    ("MIGRATION_TZ", "Europe/Atlantis"),
    ("MIGRATION_TZ", "../etc/passwd"),
    ("MIGRATION_TZ", "+1"),
    ("MIGRATION_TZ", "+25:00"),
    ("MIGRATION_MAX_DURATION", "soon"),
    ("MIGRATION_MAX_DURATION", "-5"),
    ("MIGRATION_MAX_DURATION", "2 h"),
    ("MIGRATION_WAIT_LOCK", "1y"),
    ("MIGRATION_CREATED_AFTER", "some day"),
    ("MIGRATION_CREATED_BEFORE", "2026-02-30"),
    ("MIGRATION_LOGS_FETCH_LIMIT", "0"),
    ("MIGRATION_EXPERIMENT_EVENTS_INSERT_BATCH_SIZE", "many"),
    ("MIGRATION_DATASET_EVENTS_USE_SEEN_DB", "2"),
]


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_value_is_refused_in_one_line_that_names_the_setting(name: str, text: str) -> None:
    with pytest.raises(UsageError) as refused:
        loaded({name: text})
    told = str(refused.value)
    assert (told.startswith(name + ": "), "\n" in told, "sk-" in told, refused.value.exit_code) == (
        True,
        False,
        False,
        EXIT_USAGE,
    )


def test_every_setting_with_rules_has_a_wrong_value_in_the_table_above() -> None:
    free_text = {
        "BT_SOURCE_ORG", "BT_DEST_ORG", "MIGRATION_STATE_DIR", "MIGRATION_RESUME_RUN_DIR",
        "MIGRATION_ON_END",
    }  # fmt: skip
    assert {item.env for item in TABLE} - {name for name, _ in WRONG} == {*free_text, *REQUIRED}


def test_a_wrong_flag_is_named_as_a_flag() -> None:
    with pytest.raises(UsageError, match="^--batch-size: '0' is not a whole number of at least 1$"):
        loaded({"MIGRATION_BATCH_SIZE": "5"}, batch_size="0")


def test_an_unknown_resource_is_refused_with_the_list_of_resources() -> None:
    with pytest.raises(UsageError) as refused:
        loaded({"MIGRATION_RESOURCES": "logs,datsets"})
    assert str(refused.value) == (
        "MIGRATION_RESOURCES: unknown resource 'datsets'; did you mean 'datasets'?"
        f" Use some of: all, {', '.join(SELECTABLE)}"
    )


@pytest.mark.parametrize(
    ("after", "before", "empty"),
    [
        ("2026-01-15", "2026-01-15", True),
        ("2026-01-16", "2026-01-15", True),
        ("2026-01-15T01:00:00+01:00", "2026-01-15", True),
        ("2026-01-15", "2026-01-16", False),
        ("2026-01-15T00:00:00Z", "2026-01-15T00:00:00.5Z", False),
        ("2026-01-15T00:00:00.5Z", "2026-01-15T00:00:00Z", True),
    ],
)
def test_an_empty_window_is_refused_and_any_other_is_not(
    after: str, before: str, empty: bool
) -> None:
    window = {"MIGRATION_CREATED_AFTER": after, "MIGRATION_CREATED_BEFORE": before}
    told = ""
    try:
        loaded(window)
    except UsageError as refused:
        told = str(refused)
    assert told == (
        f"MIGRATION_CREATED_AFTER ({after}) must be before MIGRATION_CREATED_BEFORE ({before})"
        if empty
        else ""
    )


# -- keys


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("text", ["", "   "])
def test_a_missing_key_is_named(name: str, text: str) -> None:
    with pytest.raises(UsageError) as refused:
        loaded({name: text})
    assert (
        str(refused.value)
        == f"{name} is not set; put it into .env or the environment (keys are never flags)"
    )


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("key", ["sk-one two", "sk-\nX-Other: 1", "sk-é", "sk-\x00", "sk-\u200b"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(name: str, key: str) -> None:
    with pytest.raises(UsageError) as refused:
        loaded({name: key})
    assert (
        str(refused.value) == f"{name} holds a character that no key has (a space or a line break?)"
    )


def test_keys_are_not_in_the_text_of_the_settings() -> None:
    assert "sk-" not in repr(loaded({}))


# -- rows


def test_row_settings_of_a_kind_win_over_those_of_all_rows() -> None:
    settings = loaded(
        {
            "MIGRATION_EVENTS_FETCH_LIMIT": "100",
            "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "20",
            "MIGRATION_LOGS_FETCH_LIMIT": "500",
            "MIGRATION_EXPERIMENT_EVENTS_INSERT_BATCH_SIZE": "5",
            "MIGRATION_DATASET_EVENTS_USE_SEEN_DB": "false",
            "MIGRATION_INSERT_MAX_REQUEST_BYTES": "1000",
            "MIGRATION_INSERT_REQUEST_HEADROOM_RATIO": "0.5",
        }
    )
    assert [settings.rows(kind) for kind in ("logs", "experiments", "datasets")] == [
        RowSettings(500, 20, True, 500),
        RowSettings(100, 5, True, 500),
        RowSettings(100, 20, False, 500),
    ]


OF_ALL_KINDS = {
    "MIGRATION_LOGS_FETCH_LIMIT": "500",
    "MIGRATION_LOGS_INSERT_BATCH_SIZE": "50",
    "MIGRATION_LOGS_USE_SEEN_DB": "false",
    "MIGRATION_DATASET_EVENTS_FETCH_LIMIT": "300",
    "MIGRATION_DATASET_EVENTS_INSERT_BATCH_SIZE": "30",
}


@pytest.mark.parametrize(
    ("flags", "logs", "datasets", "experiments"),
    [
        ({}, (500, 50, False), (300, 30, True), (1000, 1000, True)),
        ({"fetch_limit": "7"}, (7, 50, False), (7, 30, True), (7, 1000, True)),
        ({"insert_batch_size": "7"}, (500, 7, False), (300, 7, True), (1000, 7, True)),
        ({"use_seen_db": "true"}, (500, 50, True), (300, 30, True), (1000, 1000, True)),
        ({"use_seen_db": "false"}, (500, 50, False), (300, 30, False), (1000, 1000, False)),
        (
            {"fetch_limit": None, "batch_size": "7"},
            (500, 50, False),
            (300, 30, True),
            (1000, 1000, True),
        ),
    ],
)
def test_a_flag_for_all_rows_wins_over_what_the_environment_says_of_one_kind(
    flags: Dict[str, Any], logs: tuple, datasets: tuple, experiments: tuple
) -> None:
    settings = loaded(OF_ALL_KINDS, **flags)
    expected = [RowSettings(*item, 4718592) for item in (logs, datasets, experiments)]
    assert [settings.rows(kind) for kind in ("logs", "datasets", "experiments")] == expected


def test_a_batch_of_rows_leaves_headroom_in_the_largest_request() -> None:
    assert loaded({}).rows("logs") == RowSettings(1000, 1000, True, 4718592)


# -- switches


@pytest.mark.parametrize("name", ["dry_run", "new_run", "full"])
def test_switches_are_off_until_given(name: str) -> None:
    assert (getattr(loaded({}), name), getattr(loaded({}, **{name: True}), name)) == (False, True)


@pytest.mark.parametrize(
    ("flag", "name", "text", "field", "expected"),
    [
        ("no_attachments", "MIGRATION_ATTACHMENTS", "true", "attachments", False),
        ("preserve_order", "MIGRATION_PRESERVE_ORDER", "false", "preserve_order", True),
        ("keep_public", "MIGRATION_KEEP_PUBLIC", "false", "keep_public", True),
    ],
)
def test_a_given_switch_wins_and_a_missing_one_changes_nothing(
    flag: str, name: str, text: str, field: str, expected: bool
) -> None:
    told = (
        loaded({name: text}, **{flag: True}),
        loaded({name: text}, **{flag: False}),
        loaded({name: str(expected)}, **{flag: False}),
    )
    assert [getattr(item, field) for item in told] == [expected, not expected, expected]


def test_migrate_all_compares_at_the_end_unless_told_not_to() -> None:
    assert (loaded({}).verify, loaded({}, no_verify=True).verify) == (True, False)


# -- windows, lines and depths

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"window": "daily"}, ("2026-01-14T00:00:00Z", "2026-01-15T00:00:00Z", "daily in UTC")),
        (
            {"window": "daily", "tz": "-05:00"},
            ("2026-01-14T05:00:00Z", "2026-01-15T05:00:00Z", "daily in -05:00"),
        ),
        ({"window": "hourly"}, ("2026-01-15T11:00:00Z", "2026-01-15T12:00:00Z", "hourly in UTC")),
        ({"created_after": "-2d"}, ("2026-01-13T12:00:00Z", None, "-2d to now in UTC")),
        (
            {"created_after": "yesterday", "created_before": "today", "tz": "+02:00"},
            ("2026-01-13T22:00:00Z", "2026-01-14T22:00:00Z", "yesterday to today in +02:00"),
        ),
        ({"created_after": "2026-01-01", "tz": "+02:00"}, ("2025-12-31T22:00:00Z", None, "")),
    ],
)
def test_a_relative_window_becomes_absolute_at_the_start_and_keeps_its_text(
    flags: Dict[str, str], expected: tuple
) -> None:
    settings = load_settings(flags, KEYS, NOON)
    assert (settings.created_after, settings.created_before, settings.relative_window) == expected


def test_a_unit_and_a_bound_together_are_refused() -> None:
    with pytest.raises(UsageError, match="^--window chooses both ends"):
        load_settings({"window": "daily", "created_after": "-2d"}, KEYS, NOON)


@pytest.mark.skipif(sys.version_info < (3, 9), reason="names of zones need Python 3.9")
def test_a_time_zone_can_be_given_by_name() -> None:
    settings = load_settings({"window": "daily", "tz": "Europe/Berlin"}, KEYS, NOON)
    assert (settings.created_after, settings.created_before) == (
        "2026-01-13T23:00:00Z",
        "2026-01-14T23:00:00Z",
    )


@pytest.mark.skipif(sys.version_info >= (3, 9), reason="the only Python without names of zones")
def test_a_python_that_knows_no_names_of_zones_says_what_to_use() -> None:
    with pytest.raises(UsageError, match="need Python 3.9 or later; use UTC or a fixed offset"):
        load_settings({"tz": "Europe/Berlin"}, KEYS, NOON)


@pytest.mark.parametrize(
    ("flags", "environ", "expected"),
    [
        ({"quiet": True}, {}, ("ERROR", "text")),
        ({"quiet": True}, {"LOG_LEVEL": "DEBUG"}, ("ERROR", "text")),
        ({"quiet": True, "log_level": "WARNING"}, {}, ("WARNING", "text")),
        ({"json": True}, {"LOG_FORMAT": "text"}, ("INFO", "json")),
        ({"json": True, "quiet": True}, {}, ("ERROR", "json")),
    ],
)
def test_quiet_and_json_set_the_level_and_the_format_of_log_lines(
    flags: Dict[str, Any], environ: Dict[str, str], expected: Tuple[str, str]
) -> None:
    settings = loaded(environ, **flags)
    assert (settings.log_level, settings.log_format) == expected


@pytest.mark.parametrize(
    ("flags", "depth"),
    [
        ({}, "sample"),
        ({"counts": True}, "counts"),
        ({"verify_sample": "0"}, "counts"),
        ({"verify_sample": "5"}, "sample"),
        ({"full": True}, "full"),
    ],
)
def test_one_of_three_flags_sets_the_depth_of_the_comparison_of_rows(
    flags: Dict[str, Any], depth: str
) -> None:
    assert loaded({}, **flags).depth == depth


@pytest.mark.parametrize(
    "flags", [{"counts": True, "full": True}, {"verify_sample": "5", "full": True}]
)
def test_only_one_depth_of_comparison_may_be_given(flags: Dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--counts, --sample and --full: choose one"):
        loaded({}, **flags)


def test_a_wrong_sample_is_named_by_its_flag() -> None:
    with pytest.raises(UsageError, match="--sample: 'many'"):
        loaded({}, verify_sample="many")
