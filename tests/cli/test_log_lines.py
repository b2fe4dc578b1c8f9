"""Log lines: one line each, for a person or for a script, and never a key."""

from __future__ import annotations

import io
import json
import logging
from typing import Any, Iterator, List

import pytest

from bt_migrate.cli.log_lines import start_logging

KEY = "sk-0123456789abcdef"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours, urllib3 = (
        logging.getLogger(),
        logging.getLogger("bt_migrate"),
        logging.getLogger("urllib3"),
    )
    before = root.handlers[:], root.level, ours.level, urllib3.level
    yield
    root.handlers[:] = before[0]
    for logger, level in zip((root, ours, urllib3), before[1:]):
        logger.setLevel(level)


def lines(
    format_name: str,
    level: str,
    message: str,
    *args: Any,
    name: str = "bt_migrate.x",
    at: int = logging.INFO,
    **extra: Any,
) -> List[str]:
    stream = io.StringIO()
    start_logging(level, format_name, ("sk-0123", "", KEY), stream)
    logging.getLogger(name).log(at, message, *args, extra=extra)
    return stream.getvalue().splitlines()


def without_time(text: str) -> str:
    time, _, rest = text.partition(" ")
    assert (len(time), time.count(":")) == (8, 2)
    return rest


@pytest.mark.parametrize(
    ("at", "extra", "expected"),
    [
        (logging.INFO, {}, "created dataset 'Q'"),
        (logging.WARNING, {}, "WARNING created dataset 'Q'"),
        (logging.INFO, {"source_id": "s", "dest_id": "d"}, "created dataset 'Q' [s] -> [d]"),
        (logging.INFO, {"source_id": "s", "dest_id": None}, "created dataset 'Q' [s]"),
    ],
)
def test_a_line_for_people_has_the_time_what_happened_and_the_ids(
    at: int, extra: dict, expected: str
) -> None:
    assert [
        without_time(record)
        for record in lines("text", "INFO", "created %s %r", "dataset", "Q", at=at, **extra)
    ] == [expected]


def test_a_line_for_scripts_is_one_object_with_the_facts_of_the_event() -> None:
    (line,) = lines(
        "json",
        "INFO",
        "created %s",
        "Zoë\n",
        event="created",
        source_id="s",
        fields=("a",),
        when=ValueError("k"),
    )
    told = json.loads(line)
    assert (told.pop("time")[-1], told) == (
        "Z",
        {
            "level": "info",
            "message": "created Zoë\n",
            "event": "created",
            "source_id": "s",
            "fields": ["a"],
            "when": "k",
        },
    )


@pytest.mark.parametrize("format_name", ["text", "json"])
def test_a_message_of_several_lines_is_one_line(format_name: str) -> None:
    assert len(lines(format_name, "INFO", "first\nsecond\r\nthird")) == 1


@pytest.mark.parametrize("format_name", ["text", "json"])
def test_keys_are_masked_anywhere_in_a_line(format_name: str) -> None:
    (line,) = lines(format_name, "DEBUG", "sent %s", f"Bearer {KEY}", source_id=KEY)
    assert ("456789abcdef" in line, "***" in line) == (False, True)


@pytest.mark.parametrize(
    ("level", "name", "at", "count"),
    [
        ("INFO", "bt_migrate.api", logging.INFO, 1),
        ("INFO", "bt_migrate.api", logging.DEBUG, 0),
        ("DEBUG", "bt_migrate.api", logging.DEBUG, 1),
        ("ERROR", "bt_migrate.api", logging.WARNING, 0),
        ("DEBUG", "some.library", logging.INFO, 0),
        ("INFO", "some.library", logging.WARNING, 1),
        ("DEBUG", "urllib3.connectionpool", logging.WARNING, 0),
    ],
)
def test_the_level_is_of_this_package_and_libraries_speak_only_when_they_warn(
    level: str, name: str, at: int, count: int
) -> None:
    assert len(lines("text", level, "x", name=name, at=at)) == count


def test_starting_twice_does_not_double_lines() -> None:
    start_logging("INFO", "text", (), io.StringIO())
    assert len(lines("text", "INFO", "once")) == 1
