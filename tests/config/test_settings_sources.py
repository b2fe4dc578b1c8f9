"""Where settings come from, which source wins, and what `.env.example` lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Mapping, Tuple

import pytest

from bt_migrate.config.load import load_settings
from bt_migrate.config.options import flags_of, make_parser
from bt_migrate.config.settings import ROW_OVERRIDES, TABLE, Settings
from bt_migrate.errors import UsageError
from tests.support.settings import DEFAULTS, KEYS, REQUIRED, loaded

EXAMPLE = Path(__file__).resolve().parent.parent.parent / ".env.example"


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
        (None, "", "4", 100),  # set to nothing hides the one of the file
        (None, " ", "4", 100),
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
    with pytest.raises(UsageError, match="^--env-file: / is a folder$"):
        from_process(monkeypatch, {}, env_file="/")


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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--projects", "A", "--projects", '"b, c",D'], {"projects": 'A,"b, c",D'}),
        (["--resources=logs", "--resources", "prompts"], {"resources": "logs,prompts"}),
        (["--on-conflict", "keep", "--on-conflict", "prompts=update"],
         {"on_conflict": "keep,prompts=update"}),
        (["--activate", "slack", "--activate", "webhook"], {"activate": "slack,webhook"}),
        (["--log-level", "INFO", "--log-level", "DEBUG"], {"log_level": "DEBUG"}),
    ],
)  # fmt: skip
def test_a_list_that_is_given_in_parts_is_joined(
    words: List[str], expected: Mapping[str, str]
) -> None:
    flags = flags_of(make_parser("migrate-all", ""), words)
    assert {name: flags[name] for name in expected} == expected
