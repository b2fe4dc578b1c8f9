"""The right to write is judged by what the destination answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest

from bt_migrate.sandbox.http.server import Fault
from tests.support.orgs import run, tiny_pair

CREATE = ("status", "globex", "POST", "^/v1/project$", 1)


@pytest.mark.parametrize(
    "details",
    [
        {"status": 400, "body": "Missing insert access to organization x [user_email=a@b.example]"},
        {"status": 403, "body": {"Code": "ForbiddenError"}},
        {"status": 401, "body": "invalid x-api-key"},
    ],
)
def test_a_key_that_may_not_write_is_refused_before_anything(
    details: Dict[str, Any], tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        pair.sandbox.faults.add(Fault(*CREATE[:4], None, **details))
        ended = run(pair.sandbox, tmp_path / "runs", MIGRATION_RETRY_DELAY="0.01")
        assert ended.code == (3 if details["status"] == 401 else 2), ended.err
        assert ("b.example" in ended.err, pair.sandbox.writes("globex")) == (False, [])


@pytest.mark.parametrize(
    "details",
    [
        {"status": 400, "body": "the moon is full"},
        {"status": 404, "body": {"Code": "NotFound"}},
        {"status": 200, "body": {}},
        {"status": 500, "body": "boom", "times": 9},
    ],
)
@pytest.mark.variants(1)
def test_a_right_that_cannot_be_judged_is_said_to_be_unknown(
    details: Dict[str, Any], tmp_path: Path
) -> None:
    times = details.pop("times", 1)
    with tiny_pair() as pair:
        pair.sandbox.faults.add(Fault(*CREATE[:4], times, **details))
        ended = run(pair.sandbox, tmp_path / "runs", "--json", program="validate")
        assert ended.code == 0, ended.err
        assert "unknown" in ended.out + ended.err
