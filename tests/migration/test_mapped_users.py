"""A run remembers --user-map: later starts in its folder need the file no more."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import ANA, AtRequest, Pair, everything, run, run_with, runs
from tests.support.people import CLEO, DAN, EVA, invite, missing_users, people_pair, user_id

NEW_CLEO, NEW_DAN, NEW_EVA = "cleo@new.example", "dan@new.example", "eva@new.example"
MAP = {CLEO: NEW_CLEO, DAN: NEW_DAN, EVA: NEW_EVA}


@pytest.fixture
def pair() -> Iterator[Pair]:
    with people_pair() as people:
        yield people


def map_file(folder: Path, users: Any, name: str = "users.csv") -> str:
    path = folder / name
    path.write_text("".join(f"{old},{new}\n" for old, new in users.items()), encoding="utf-8")
    return str(path)


def members_of_group(org: Any) -> List[str]:
    emails = {user["id"]: user["email"] for user in org.objects("user")}
    (group,) = org.objects("group")
    return [emails[user] for user in group["member_users"]]


def test_every_later_start_in_the_folder_maps_users_as_the_first_did(
    pair: Pair, tmp_path: Path
) -> None:
    invite(pair, [*MAP.values(), CLEO])  # a namesake: somebody else in the destination
    root = tmp_path / "runs"
    first = run(pair.sandbox, root, "--user-map", map_file(tmp_path, MAP))
    assert first.code == 0, first.out + first.err
    (path,) = runs(root)
    for place in (path, root):
        verified = run(pair.sandbox, place, "--full", program="verify")
        assert verified.code == 0, verified.out + verified.err
    before = everything(pair.dest)
    for arguments in (["--since-last"], [], ["--new-run"]):
        again = run(pair.sandbox, root, *arguments, "--verify")
        assert again.code == 0, again.out + again.err
    assert everything(pair.dest) == before
    assert members_of_group(pair.dest) == [NEW_CLEO, ANA, NEW_DAN]
    texts = [file.read_text() for file in root.rglob("run.json")]
    assert not any(email in text for text in texts for email in (*MAP, *MAP.values()))


def test_a_killed_run_is_resumed_without_the_file(pair: Pair, tmp_path: Path) -> None:
    invite(pair, list(MAP.values()))
    root = tmp_path / "runs"
    mapped = ("--user-map", map_file(tmp_path, MAP))
    kill = AtRequest(1, "after", signal.SIGKILL, lambda method, path: path == "/v1/project_tag")
    assert run_with(pair, root, kill, *mapped).code == -signal.SIGKILL
    resumed = run(pair.sandbox, root, "--verify")
    assert (resumed.code, missing_users(root)) == (0, []), resumed.out + resumed.err


def test_a_file_that_contradicts_the_run_is_refused_in_one_line(pair: Pair, tmp_path: Path) -> None:
    invite(pair, list(MAP.values()))
    root = tmp_path / "runs"
    assert run(pair.sandbox, root, "--user-map", map_file(tmp_path, MAP)).code == 0
    (path,) = runs(root)
    other = map_file(tmp_path, {**MAP, CLEO: NEW_DAN, DAN: NEW_CLEO})
    fewer = map_file(tmp_path, {CLEO: NEW_CLEO}, "fewer.csv")
    for given, said in ((other, "lines 1, 2: "), (fewer, "no line for user ")):
        for program in ("verify", "migrate_all"):
            refused = run(pair.sandbox, path, "--user-map", given, program=program)
            line = " ".join(refused.err.split())
            assert (refused.code, said in line) == (2, True), line
            assert f"{path} was made with" in line
            assert not any(email in line for email in (*MAP, *MAP.values()))
    # The same users in another order, and one who has the same address on both sides.
    more = map_file(tmp_path, {EVA: NEW_EVA, ANA: ANA, DAN: NEW_DAN, CLEO: NEW_CLEO}, "more.csv")
    ended = run(pair.sandbox, path, "--user-map", more, program="verify")
    assert ended.code == 0, ended.out + ended.err


def refuse_invitations(method: str, path: str, raw: bytes) -> Any:
    is_invitation = path == "/v1/organization/members"
    return Answer(403, b"no right", "text/plain") if is_invitation else None


def test_a_refused_invitation_is_on_the_to_do_list_of_verify(pair: Pair, tmp_path: Path) -> None:
    invite(pair, [NEW_CLEO, NEW_DAN])
    pair.sandbox.refuse = refuse_invitations
    root = tmp_path / "runs"
    mapped = ("--user-map", map_file(tmp_path, MAP))
    first = run(pair.sandbox, root, *mapped, "--invite-users", "--yes")
    assert (first.code, missing_users(root)) == (1, [NEW_EVA]), first.out
    for given in (mapped, ()):
        verified = run(pair.sandbox, root, *given, program="verify")
        assert verified.code == 0, verified.out + verified.err
        assert "To do:\n  invite 1 user, then run again" in verified.out, verified.out
    assert run(pair.sandbox, root, *mapped, program="validate").code == 0
    pair.sandbox.refuse = None
    second = run(pair.sandbox, root, *mapped, "--invite-users", "--yes", "--verify")
    assert (second.code, missing_users(root)) == (0, []), second.out + second.err
    assert run(pair.sandbox, root, program="verify").code == 0
    record = json.loads((runs(root)[-1] / "run.json").read_text())
    assert record["user_map"][user_id(pair.source, EVA)] == user_id(pair.dest, NEW_EVA)


def test_a_mapped_user_who_has_left_the_destination_is_not_mistaken_for_another(
    pair: Pair, tmp_path: Path
) -> None:
    pair.sandbox.refuse = refuse_invitations
    root = tmp_path / "runs"
    mapped = ("--user-map", map_file(tmp_path, {CLEO: NEW_CLEO}))
    arguments = ("--resources", "groups")
    first = run(pair.sandbox, root, *arguments, *mapped, "--invite-users", "--yes")
    assert first.code == 1, first.out
    invite(pair, [CLEO, DAN])
    # Without the file it is not known who is meant: the reference stays out.
    second = run(pair.sandbox, root, *arguments)
    assert second.code == 0, second.out + second.err
    assert members_of_group(pair.dest) == [ANA, DAN]
    assert f"{CLEO} (give --user-map again)" in " ".join(second.out.split())
