"""The user to whom a project belongs: `user_id`, which PATCH takes and POST does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import (
    ANA,
    DEST_KEY,
    SOURCE_KEY,
    AtRequest,
    Pair,
    WatchedSandbox,
    findings,
    report,
    run,
    run_with,
)
from tests.support.people import CLEO, invite, user_id


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two projects, of which one belongs to Cleo, whom the destination does not know."""
    with WatchedSandbox() as sandbox:
        members = [{"email": ANA}, {"email": CLEO}]
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=members)
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=[{"email": ANA}])
        source.create("project", {"name": "of Ana"})
        project = source.create("project", {"name": "of Cleo"})["id"]
        source.patch("project", project, {"user_id": user_id(source, CLEO)})
        yield Pair(sandbox, source, dest)


def owners(org: Any) -> List[str]:
    emails = {user["id"]: user["email"] for user in org.objects("user")}
    return sorted(f"{obj['name']}: {emails[obj['user_id']]}" for obj in org.objects("project"))


OWNED = [f"of Ana: {ANA}", f"of Cleo: {CLEO}"]
NOT_OWNED = [f"of Ana: {ANA}", f"of Cleo: {ANA}"]


def test_a_project_belongs_to_the_same_user(pair: Pair, tmp_path: Path) -> None:
    invite(pair, [CLEO])
    done = run(pair.sandbox, tmp_path / "runs", "--verify")
    assert (done.code, owners(pair.dest)) == (0, OWNED), done.last_words
    assert report(tmp_path / "runs")["problems"] == []
    pair.sandbox.clear_requests()
    again = run(pair.sandbox, tmp_path / "again")
    assert (again.code, pair.sandbox.writes("globex")) == (0, []), again.last_words


def test_a_project_gets_its_user_once_that_user_is_invited(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    done = run(pair.sandbox, root, "--verify")
    assert (done.code, owners(pair.dest), report(root)["lost"]) == (0, NOT_OWNED, []), done.out
    invite(pair, [CLEO])
    done = run(pair.sandbox, root, "--verify")
    assert (done.code, owners(pair.dest)) == (0, OWNED), done.out


def test_a_killed_start_is_completed(pair: Pair, tmp_path: Path) -> None:
    invite(pair, [CLEO])
    is_post: Callable[[str, str], bool] = lambda method, path: (  # noqa: E731
        (method, path) == ("POST", "/v1/project")
    )
    run_with(pair, tmp_path / "runs", AtRequest(2, "after", 9, is_post))
    done = run(pair.sandbox, tmp_path / "runs", "--verify")
    assert (done.code, owners(pair.dest)) == (0, OWNED), done.last_words


def test_a_project_that_exists_keeps_its_user(pair: Pair, tmp_path: Path) -> None:
    invite(pair, [CLEO])
    there = pair.dest.create("project", {"name": "of Cleo", "description": "theirs"})
    pair.dest.create("project", {"name": "of Ana"})
    update = ("--on-conflict", "update")
    done = run(pair.sandbox, tmp_path / "runs", "--verify", *update)
    assert (done.code, owners(pair.dest)) == (0, NOT_OWNED), done.last_words
    assert report(tmp_path / "runs")["verification"]["tolerated"]["owner"] == 1
    pair.dest.delete("project", there["id"])


@pytest.mark.parametrize(
    "answer",
    [
        Answer(400, b"Extraneous key 'user_id' at path []", "text/plain"),
        Answer(403, b"only owners may change the owner", "text/plain"),
        Answer(400, b"user_id: not yours", "text/plain"),
    ],
)
@pytest.mark.variants(1)
def test_a_destination_that_refuses_the_user_is_a_loss(
    answer: Answer, pair: Pair, tmp_path: Path
) -> None:
    def refuse(method: str, path: str, body: bytes) -> Optional[Answer]:
        return answer if method == "PATCH" and b"user_id" in body else None

    invite(pair, [CLEO])
    pair.sandbox.refuse = refuse
    root = tmp_path / "runs"
    for _ in range(2):
        done = run(pair.sandbox, root, "--verify")
        assert (done.code, owners(pair.dest)) == (0, NOT_OWNED), done.last_words
        (left,) = findings(root, "field_not_taken")
        assert (left["name"], left["path"], left["severity"]) == ("of Cleo", "user_id", "loss")
    pair.sandbox.refuse = None
    done = run(pair.sandbox, root, "--verify")
    assert (done.code, owners(pair.dest)) == (0, OWNED), done.last_words
