"""--invite-users and --user-map: who is invited, what follows, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, List, Optional, Tuple

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.compare_orgs import differences
from tests.support.orgs import (
    ANA,
    AtRequest,
    Json,
    Pair,
    environment,
    everything,
    findings,
    is_insert,
    run,
    run_with,
    runs,
)
from tests.support.people import (
    ASSIGNED,
    CLEO,
    DAN,
    EVA,
    MISSING,
    invite,
    missing_users,
    people_pair,
    user_id,
)
from tests.support.undoing import undo_run

MEMBERS = ("PATCH", "/v1/organization/members")
FAY = "fay@acme.example"


class Invitations:
    """Set as `sandbox.refuse`: keeps what was asked, and answers the next ones as told."""

    def __init__(self, *answers: Answer) -> None:
        self.asked: List[Json] = []
        self._answers = list(answers)

    def __call__(self, method: str, path: str, raw: bytes) -> Optional[Answer]:
        if (method, path) != MEMBERS:
            return None
        self.asked.append(json.loads(raw)["invite_users"])
        return self._answers.pop(0) if self._answers else None


def add_stranger(pair: Pair) -> None:
    """A user of the source to whom nothing refers."""
    store = pair.sandbox.store
    with store.lock:
        store.add_user(store.orgs[pair.source.id], {"email": FAY})


def members(org: Any) -> List[str]:
    return sorted(user["email"] for user in org.objects("user"))


@pytest.mark.usefixtures("data_plane")
@pytest.mark.variants(1)
def test_users_to_whom_something_refers_are_invited_and_everything_follows_in_one_start(
    tmp_path: Path,
) -> None:
    with people_pair() as pair:
        add_stranger(pair)
        pair.sandbox.refuse = asked = Invitations()
        ended = run(pair.sandbox, tmp_path, "--invite-users", "--yes", "--verify")
        assert ended.code == 0, ended.out + ended.err
        assert [(sorted(item["emails"]), item["send_invite_emails"]) for item in asked.asked] == [
            (sorted(MISSING), False)
        ]
        assert members(pair.dest) == sorted((ANA, *MISSING))
        assert (differences(pair), missing_users(tmp_path)) == ([], [FAY])
        assert not any(email in ended.err for email in MISSING)
        again = run(pair.sandbox, tmp_path, "--invite-users", "--yes", "--send-invites")
        assert (again.code, len(asked.asked)) == (0, 1)
        undone = run_undo(pair, runs(tmp_path)[0])
        assert "undo does not remove the 3 users that the run invited" in undone
        assert members(pair.dest) == sorted((ANA, *MISSING))


def run_undo(pair: Pair, run_directory: Path) -> str:
    done = undo_run(pair, run_directory, "--yes")
    assert done.code == 0, done.last_words
    return " ".join(done.out.split())


@pytest.mark.parametrize(
    "answer",
    [
        Answer(403, b"no right for cleo@acme.example", "text/plain"),
        Answer(200, b'{"status": "queued"}'),
    ],
    ids=["403", "another status"],
)
@pytest.mark.variants(1)
def test_a_refused_invitation_is_reported_and_the_same_command_completes_it_later(
    answer: Answer, tmp_path: Path
) -> None:
    with people_pair() as pair:
        # A wrong answer is asked for again.
        pair.sandbox.refuse = Invitations(*[answer] * 4)
        arguments = ("--resources", "groups", "--invite-users", "--yes")
        ended = run(pair.sandbox, tmp_path, *arguments)
        assert ended.code == 1, ended.out + ended.err
        (told,) = findings(tmp_path, "not_invited")
        texts = [ended.err, told["detail"]]
        assert (told["severity"], any(CLEO in text for text in texts)) == ("failure", False)
        pair.sandbox.refuse = None
        assert run(pair.sandbox, tmp_path, *arguments).code == 0
        (group,) = pair.dest.objects("group")
        assert len(group["member_users"]) == 3
        assert findings(tmp_path, "not_invited") == []


def test_without_a_terminal_and_without_yes_nobody_is_invited_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    with people_pair() as pair:
        before = everything(pair.dest)
        ended = run(pair.sandbox, tmp_path, "--invite-users")
        assert (ended.code, everything(pair.dest)) == (2, before)
        assert "there is no terminal to ask on; add --yes" in ended.err
        recommended = shlex.split(ended.out.splitlines()[-1], comments=True)
        assert {"--invite-users", "--yes"} <= set(recommended)
        ended = run(pair.sandbox, tmp_path, "--send-invites")
        assert (ended.code, "only with --invite-users" in ended.err) == (2, True)
        assert run(pair.sandbox, tmp_path, "--invite-users", "--dry-run").code == 0
        assert everything(pair.dest) == before


def write_map(folder: Path, text: str) -> str:
    path = folder / "users.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_user_map_is_used_by_everything_that_names_users(tmp_path: Path) -> None:
    with people_pair() as pair:
        invite(pair, ["Cleo@New.example", DAN, "e.v.a@new.example"])
        text = f"source,destination\n{CLEO.title()}, cleo@new.EXAMPLE\n\n{EVA},e.v.a@new.example\n"
        arguments = ("--user-map", write_map(tmp_path, text), "--verify")
        ended = run(pair.sandbox, tmp_path / "state", *arguments)
        assert ended.code == 0, ended.out + ended.err
        cleo, eva = (
            user_id(pair.dest, email) for email in ("Cleo@New.example", "e.v.a@new.example")
        )
        ana, dan = (user_id(pair.dest, email) for email in (ANA, DAN))
        (group,), (view,), (score,) = map(pair.dest.objects, ("group", "view", "project_score"))
        rows = pair.dest.rows("dataset", pair.dest.objects("dataset")[0]["id"])
        assert {
            "group": group["member_users"],
            "view": view["user_id"],
            "score": score["config"]["visibility"]["users"],
            "acls": {acl["user_id"] for acl in pair.dest.objects("acl")},
            "rows": [row["metadata"][ASSIGNED] for row in rows],
        } == {
            "group": [cleo, ana, dan],
            "view": cleo,
            "score": [cleo, dan, ana],
            "acls": {dan, eva},
            "rows": [[cleo, ana, dan], [eva], [ana], [dan, eva, cleo]],
        }
        assert missing_users(tmp_path / "state") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{FAY},{ANA}\n", "line 1: the source has no user of that address"),
        (f"{CLEO},{FAY}\n", "line 1: the destination has no member of that address"),
        (f"{CLEO},{ANA}\n", "line 1: another user of the source has that address"),
    ],
)
def test_a_user_map_of_other_users_is_refused_before_anything_is_written(
    text: str, said: str, shared_pair: Pair, tmp_path: Path
) -> None:
    before = everything(shared_pair.dest)
    ended = run(shared_pair.sandbox, tmp_path / "s", "--user-map", write_map(tmp_path, text))
    assert (ended.code, everything(shared_pair.dest)) == (2, before), ended.err
    assert said in ended.err.replace("\n", " ")
    assert not any(email in ended.err.lower() for email in (*MISSING, FAY, ANA))


def test_users_whom_a_key_may_not_list_are_neither_mapped_nor_invited(tmp_path: Path) -> None:
    with people_pair() as pair:
        before = everything(pair.dest)
        invited = Invitations()

        def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
            is_list = method == "GET" and path.startswith("/v1/user")
            return Answer(403, b"no", "text/plain") if is_list else invited(method, path, raw)

        pair.sandbox.refuse = refuse
        mapped = ("--user-map", write_map(tmp_path, f"{CLEO},{DAN}\n"))
        ended = run(pair.sandbox, tmp_path / "s", *mapped)
        assert (ended.code, everything(pair.dest)) == (2, before), ended.err
        assert "does not list its users to this key" in ended.err
        arguments = ("--resources", "project_tags", "--invite-users", "--yes")
        ended = run(pair.sandbox, tmp_path / "t", *arguments)
        assert (ended.code, invited.asked) == (1, []), ended.out + ended.err
        assert len(findings(tmp_path / "t", "not_invited")) == 1


@pytest.fixture(scope="module")
def shared_pair() -> Any:
    with people_pair() as pair:
        yield pair


def test_a_user_who_has_not_joined_yet_is_not_invited_again_and_follows_later(
    tmp_path: Path,
) -> None:
    with people_pair() as pair:
        success = Answer(200, b'{"status": "success", "send_email_error": "no address"}')
        pair.sandbox.refuse = asked = Invitations(success)
        arguments = ("--resources", "groups", "--invite-users", "--send-invites", "--yes")
        ended = run(pair.sandbox, tmp_path, *arguments)
        assert ended.code == 0, ended.out + ended.err
        assert "could not send e-mails" in ended.err
        assert run(pair.sandbox, tmp_path, *arguments).code == 0
        assert [item["send_invite_emails"] for item in asked.asked] == [True]
        assert missing_users(tmp_path) == sorted(MISSING)
        invite(pair, MISSING)
        assert run(pair.sandbox, tmp_path, *arguments).code == 0
        (group,) = pair.dest.objects("group")
        assert (len(group["member_users"]), missing_users(tmp_path)) == (3, [])


def test_a_kill_while_users_are_invited_and_what_waited_is_completed_loses_nothing(
    tmp_path: Path,
) -> None:
    """Killed after the invitation, then after the first of the rows that are completed."""
    with people_pair() as pair:
        arguments = ("--invite-users", "--yes", "--verify")
        invited = AtRequest(1, "after", signal.SIGKILL, lambda *request: request == MEMBERS)
        assert run_with(pair, tmp_path, invited, *arguments).code == -signal.SIGKILL
        assert members(pair.dest) == sorted((ANA, *MISSING))
        merged = AtRequest(1, "after", signal.SIGKILL, lambda _, path: is_insert(path))
        assert run_with(pair, tmp_path, merged, *arguments).code == -signal.SIGKILL
        ended = run(pair.sandbox, tmp_path, *arguments)
        assert ended.code == 0, ended.out + ended.err
        assert (differences(pair), missing_users(tmp_path), len(runs(tmp_path))) == ([], [], 1)


def answered(pair: Pair, folder: Path, answer: bytes) -> Tuple[int, str]:
    """(exit code, what is shown) of a move of groups on a terminal on which somebody types."""
    reader, writer = pty.openpty()
    words = ["--state-dir", str(folder), "--resources", "groups", "--no-verify", "--invite-users"]
    command = [sys.executable, "-m", "bt_migrate.phases.migrate_all", *words]
    env = {**environment(pair.sandbox), "TERM": "dumb"}
    process = subprocess.Popen(command, env=env, stdin=writer, stdout=writer, stderr=writer)
    os.close(writer)
    chunks: List[bytes] = []
    with contextlib.suppress(OSError):  # the other end is closed
        while True:
            chunks.append(os.read(reader, 65536))
            if b"".join(chunks).endswith(b"[y/N] "):
                os.write(reader, answer)
    os.close(reader)
    return process.wait(60), b"".join(chunks).decode()


def test_on_a_terminal_a_person_sees_who_is_missing_and_is_asked(tmp_path: Path) -> None:
    with people_pair() as pair:
        before = everything(pair.dest)
        code, text = answered(pair, tmp_path, b"n\n")
        assert (code, everything(pair.dest)) == (2, before), text
        assert f"Not members of globex: {', '.join(MISSING)}" in text
        assert "Invite the users that something refers to? E-mails are not sent. [y/N]" in text
        # The recommended command does not ask again, and ends with 0.
        recommended = shlex.split(text.split("Next: bin/migrate-all ")[1].splitlines()[0])
        assert "--invite-users" not in recommended
        ended = run(pair.sandbox, tmp_path, *recommended)
        assert (ended.code, members(pair.dest)) == (0, [ANA]), ended.out
        code, text = answered(pair, tmp_path, b"y\n")
        assert (code, members(pair.dest)) == (0, sorted((ANA, CLEO, DAN))), text
