"""What the destination refuses for good: the recommended commands end with 0 after a look at it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.faults import Fault
from tests.support.following import follow_to_the_end
from tests.support.orgs import Pair, findings, is_insert, run

LIMIT = 20_000


def programs(lines: Any) -> Any:
    return [line.split("/")[1].split()[0] for line in lines]


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.variants(1)
def test_rows_that_are_refused_twice_are_accepted(sync: bool, pair: Pair, tmp_path: Path) -> None:
    numbers = itertools.count()

    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        is_odd = is_insert(path) and b'"odd' in raw
        return Answer(400, f"odd [request_id={next(numbers)}]".encode()) if is_odd else None

    root, options = tmp_path / "runs", ["--since-last"] if sync else []
    if sync:
        assert run(pair.sandbox, root, *options).code == 0
    project = pair.source.objects("project")[0]["id"]
    pair.source.insert("project_logs", project, [{"id": f"odd {n}"} for n in range(3)])
    pair.sandbox.refuse = refuse
    first = run(pair.sandbox, root, *options)
    assert first.code == 1, first.out
    lines = follow_to_the_end(pair, first, tmp_path)
    assert programs(lines) == ["migrate-all", "accept", "migrate-all"], lines
    # An unattended sync is green, and its report goes on telling what was accepted.
    assert run(pair.sandbox, root, "--since-last").code == 0
    assert findings(root, "accepted_difference")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("^/v1/project_tag", "project_tags"),
        ("^/v1/project$", "projects"),
        ("^/v1/(prompt|function)", "functions"),
    ],
)
@pytest.mark.variants(1)
def test_objects_that_are_refused_twice_are_accepted(
    path: str, kind: str, pair: Pair, tmp_path: Path
) -> None:
    """With what waits for them, or refers to them."""
    root = tmp_path / "runs"
    pair.sandbox.faults.add(
        Fault("status", "globex", "POST", path=path, times=None, status=400, body="no such thing")
    )
    first = run(pair.sandbox, root, "--verify")
    assert first.code == 1, first.out
    lines = follow_to_the_end(pair, first, tmp_path)
    assert programs(lines) == ["migrate-all", "accept", "migrate-all"], lines
    assert kind in {record["resource"] for record in findings(root, "accepted_difference")}
    assert not findings(root, "not_created")
    pair.sandbox.faults.clear()
    assert run(pair.sandbox, root, "--since-last").code == 0
    assert not findings(root, "accepted_difference")


@pytest.mark.parametrize(
    ("field", "steps"),
    [("input", ["migrate-all"]), ("scores", ["migrate-all", "accept", "migrate-all"])],
)
@pytest.mark.variants(1)
def test_a_row_that_is_too_large_is_sent_with_attachments_or_accepted(
    field: str, steps: Any, pair: Pair, tmp_path: Path
) -> None:
    """Scores cannot become attachments."""
    project = pair.source.objects("project")[0]["id"]
    large = {f"name {n} {'x' * 1000}": 1 for n in range(40)}
    pair.source.insert("project_logs", project, [{"id": "large", field: large}])
    pair.sandbox.max_request_bytes = LIMIT
    first = run(pair.sandbox, tmp_path / "runs")
    assert first.code == 1, first.out
    lines = follow_to_the_end(pair, first, tmp_path)
    assert programs(lines) == steps, lines
    assert lines[0].startswith("MIGRATION_MAX_ROW_BYTES=")
