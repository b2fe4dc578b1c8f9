"""Which objects count as created by a POST: proof by date and content, and what contradicts it."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from bt_migrate.model.resource_table import EXPERIMENTS, FUNCTIONS, GROUPS, VIEWS
from bt_migrate.objects.proof import (
    CLOCK_SKEW_S,
    CreationClock,
    contradicts,
    created_seconds,
    exact_seconds,
    is_left_by_killed_process,
)
from bt_migrate.state.object_file import Intention

BODY: Dict[str, Any] = {"name": "a", "metadata": {"n": 1.0}, "project_id": "p"}


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        ({**BODY, "id": "1"}, False),
        ({**BODY, "metadata": {"n": 1}}, False),
        ({**BODY, "metadata": {"n": 1, "added": "by the server"}}, False),
        ({"id": "1"}, False),
        ({**BODY, "repo_info": {"commit": "c"}, "public": False}, False),
        ({**BODY, "description": ""}, False),
        ({**BODY, "name": "A"}, False),
        ({**BODY, "metadata": {"n": 2}}, True),
        ({**BODY, "metadata": {}}, True),
        ({**BODY, "description": "theirs"}, True),
        ({**BODY, "tags": ["theirs"]}, True),
    ],
)
def test_an_answer_with_content_that_was_not_sent_disproves_a_creation(
    answered: Dict[str, Any], expected: bool
) -> None:
    assert contradicts(EXPERIMENTS, BODY, answered) is expected
    assert contradicts(FUNCTIONS, BODY, answered) is False  # a new version holds what was sent


def test_fields_that_servers_set_do_not_disprove_a_creation() -> None:
    body = {"name": "v", "view_type": "logs", "starred": True}
    answered = {"name": "v", "view_type": "logs", "starred": False, "user_id": "the caller"}
    assert not contradicts(VIEWS, body, answered)
    group = {"name": "g", "member_users": ["u1", "u2"]}
    assert not contradicts(GROUPS, group, {"name": "g"})
    assert contradicts(GROUPS, group, {"name": "g", "description": "theirs"})


def test_the_creation_clock_is_learned_from_the_dates_of_created_objects() -> None:
    clock = CreationClock()
    assert clock.least_s(50.0) is None
    clock.note(1060.0, 1001.0)  # a minute ahead of ours, less the time that the answer took
    clock.note(1070.0, 1010.5)
    assert clock.least_s(2000.0) == pytest.approx(2059.5 - CLOCK_SKEW_S)
    clock.note(0.0, 5000.0)  # no date
    assert clock.least_s(2000.0) == pytest.approx(2059.5 - CLOCK_SKEW_S)
    clock.forget()
    assert clock.least_s(2000.0) is None


def test_a_clock_runs_once_two_dates_in_succession_differ() -> None:
    clock = CreationClock()
    assert [clock.is_running(date) for date in (5.5, 5.5, 6.5, 6.5)] == [False, False, True, False]


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2026-01-01T00:00:00.250Z", 1767225600.25),
        ("2026-01-01T00:00:00Z", 1767225601.0),
        ("2026-01-01T00:00:00.000Z", 1767225601.0),
        ("yesterday", 0.0),
        (None, 0.0),
        (17, 0.0),
    ],
)
def test_the_date_of_an_object_is_the_end_of_the_second_or_millisecond_that_it_names(
    created: Any, expected: float
) -> None:
    assert created_seconds({"created": created}) == expected


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2026-01-01T00:00:00.250+00:00", 1767225600.25),
        ("2026-01-01T00:00:00.000Z", 0.0),
        ("2026-01-01T00:00:00Z", 0.0),
        (None, 0.0),
    ],
)
def test_a_date_of_whole_seconds_sets_no_clock(created: Any, expected: float) -> None:
    assert exact_seconds({"created": created}) == expected


@pytest.mark.parametrize(
    ("fingerprint", "created", "expected"),
    [
        ("sent", "2026-01-01T00:00:01.000Z", True),
        ("sent", None, True),
        ("sent", "2025-12-31T23:00:00.000Z", False),
        ("other", "2026-01-01T00:00:01.000Z", False),
    ],
)
def test_an_object_of_a_killed_process_is_recognized_by_content_and_date(
    fingerprint: str, created: Any, expected: bool
) -> None:
    intent = Intention(key=["n"], project="", fingerprint="sent", at=1767225600.0)
    assert is_left_by_killed_process(intent, fingerprint, {"created": created}) is expected
