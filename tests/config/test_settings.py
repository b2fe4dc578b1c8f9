"""Settings: where each is read, which source wins, what is refused, what `.env.example` lists."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

import pytest

from bt_migrate.config.load import load_settings
from bt_migrate.config.settings import ROW_OVERRIDES, TABLE, RowSettings, Settings
from bt_migrate.errors import EXIT_USAGE, UsageError
from bt_migrate.model.resources import SELECTABLE

EXAMPLE = Path(__file__).resolve().parent.parent.parent / ".env.example"
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


@pytest.fixture(autouse=True)
def _no_env_file_of_somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(environ: Mapping[str, str], **flags: Any) -> Settings:
    return load_settings(flags, {**KEYS, **environ})


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
    assert loaded({name: text}) == Settings(**{**DEFAULTS, field: expected})


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


def test_an_unknown_resource_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UsageError) as refused:
        loaded({"MIGRATION_RESOURCES": "logs,datsets"})
    assert str(refused.value) == (
        "MIGRATION_RESOURCES: unknown resource 'datsets'; did you mean 'datasets'?;"
        f" known are: all, {', '.join(SELECTABLE)}"
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
        "MIGRATION_CREATED_AFTER is not before MIGRATION_CREATED_BEFORE: the window is empty"
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


# -- where settings come from


def from_process(
    monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str], **flags: Any
) -> Settings:
    for name, value in {**KEYS, **environ}.items():
        monkeypatch.setenv(name, value)
    return load_settings(flags)


@pytest.mark.parametrize(
    ("flag", "environ", "in_file", "expected"),
    [
        (None, None, None, 100),
        (None, None, "4", 4),
        (None, "3", "4", 3),
        ("2", "3", "4", 2),
        ("2", None, None, 2),
        (None, "", "4", 4),  # set to nothing is not set
        (None, " ", "4", 4),
        (None, None, "", 100),
    ],
)
def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flag: Any,
    environ: Any,
    in_file: Any,
    expected: int,
) -> None:
    if in_file is not None:
        (tmp_path / ".env").write_text(f"MIGRATION_BATCH_SIZE={in_file}\n")
    given = {} if environ is None else {"MIGRATION_BATCH_SIZE": environ}
    assert from_process(monkeypatch, given, batch_size=flag).batch_size == expected


def test_an_environment_that_is_given_stands_for_the_process_and_for_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("MIGRATION_BATCH_SIZE=4\n")
    (tmp_path / "other.env").write_text("MIGRATION_BATCH_SIZE=5\n")
    monkeypatch.setenv("MIGRATION_BATCH_SIZE", "6")
    alone = [
        loaded({}),
        loaded({}, env_file="other.env"),
        loaded({"MIGRATION_BATCH_SIZE": "7"}, env_file="other.env"),
    ]
    assert ([item.batch_size for item in alone], from_process(monkeypatch, {}).batch_size) == (
        [100, 100, 7],
        6,
    )


def test_a_named_file_takes_the_place_of_the_one_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("MIGRATION_BATCH_SIZE=4\nMIGRATION_MAX_CONCURRENT=4\n")
    (tmp_path / "other.env").write_text("MIGRATION_BATCH_SIZE=5\n")
    settings = from_process(monkeypatch, {}, env_file=str(tmp_path / "other.env"))
    assert settings == Settings(**{**DEFAULTS, "batch_size": 5})


def test_a_named_file_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="^--env-file: there is no file nowhere.env$"):
        from_process(monkeypatch, {}, env_file="nowhere.env")


def test_a_file_that_is_no_text_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_bytes(b"BT_SOURCE_ORG=\xff\xfe\n")
    with pytest.raises(UsageError, match="^.env: cannot be read as an .env file: "):
        from_process(monkeypatch, {})


def test_values_of_the_env_file_are_taken_literally(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# a comment\n"
        "export BT_SOURCE_API_KEY=sk-$HOME-${HOME}\n"
        "BT_DEST_API_KEY='sk-dest'  # mine\n"
        'MIGRATION_PROJECTS=Alpha,"one, with a comma"\n'
        "SOMETHING_ELSE=1\n",
        encoding="utf-8",
    )
    settings = load_settings({})
    assert (settings.source_api_key, settings.dest_api_key, settings.projects) == (
        "sk-$HOME-${HOME}",
        "sk-dest",
        ("Alpha", "one, with a comma"),
    )


def test_a_file_that_windows_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(
        b"\xef\xbb\xbfBT_SOURCE_API_KEY=sk-source\r\nBT_DEST_API_KEY=sk-dest\r\n"
    )
    assert load_settings({}) == Settings(**DEFAULTS)


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


# -- windows and time zones

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
def test_a_window_is_absolute_from_the_start_and_remembers_how_it_was_asked_for(
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
def test_quiet_and_json_are_about_lines_too(
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
def test_rows_are_compared_as_deep_as_asked_for(flags: Dict[str, Any], depth: str) -> None:
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


# -- .env.example


def entries_of(text: str) -> List[Tuple[str, str]]:
    """(comment, assignment) pairs; lines of headings begin with ##."""
    lines = [line for line in text.splitlines() if line and not line.startswith("##")]
    return list(zip(lines[::2], lines[1::2]))


def test_the_example_file_holds_every_setting_with_one_line_about_it_and_nothing_else() -> None:
    expected = [
        (f"# {item.about}", f"{item.env}={item.default}") for item in (*TABLE, *ROW_OVERRIDES)
    ]
    text = EXAMPLE.read_text(encoding="utf-8")
    content = [line for line in text.splitlines() if line and not line.startswith("##")]
    assert (sorted(entries_of(text)), len(content)) == (sorted(expected), 2 * len(expected))


def test_the_example_file_begins_with_what_is_required() -> None:
    names = [
        assignment.partition("=")[0]
        for _, assignment in entries_of(EXAMPLE.read_text(encoding="utf-8"))
    ]
    assert (names[:2], sorted(names)) == (
        REQUIRED,
        sorted(item.env for item in (*TABLE, *ROW_OVERRIDES)),
    )


def test_the_example_file_with_keys_filled_in_says_the_defaults(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    for name, key in KEYS.items():
        text = text.replace(f"{name}=\n", f"{name}={key}\n")
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    assert load_settings({}) == Settings(**DEFAULTS)
