"""A destination damaged on purpose: verify finds each damage, names it, and finds nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Iterator, Set, Tuple

import pytest

from bt_migrate.sandbox.data import inserts as inserts
from bt_migrate.sandbox.data.rows import CONTENT, SPAN_IDS
from tests.support.damage import Damaged, Found, Json
from tests.support.damage_table import DAMAGES, MORE
from tests.support.orgs import Ended, Pair, run, runs, tiny_pair


def fill_more(source: Any) -> None:
    """What some damages need and the tiny organization does not have."""
    projects = {obj["name"]: obj["id"] for obj in source.objects("project")}
    alpha, beta = projects["Alpha/α"], projects["beta"]
    rows = {row["id"]: row for row in source.rows("project_logs", alpha)}
    changed = []
    for number in (11, 12, 13, 14, 15, 16, 17, 20, 24):
        changed.append({**kept(rows[f"{number:04}"]), "metadata": MORE})
    changed.append({**kept(rows["0023"]), "scores": {"none": None, "s": 1}})
    changed.append({**kept(rows["0111"]), "created": "2025-10-31T23:59:59.999Z"})
    changed.append({**kept(rows["0018"]), "created": "2025-10-31T08:30:00.000Z"})
    changed.append({**kept(rows["0019"]), "span_parents": ["s0018"]})
    changed.append({**kept(rows["0108"]), "context": {"caller_line": 3}})
    source.insert("project_logs", alpha, changed)
    rows = {row["id"]: row for row in source.rows("project_logs", beta)}
    own = {
        f"{number:04}": source.attach(b"bytes of %d" % number, f"{number}.txt", "text/plain")
        for number in range(20, 24)
    }
    source.insert(
        "project_logs",
        beta,
        [{**kept(rows[row_id]), "input": {"own": reference}} for row_id, reference in own.items()],
    )
    for row_id, text in (("0030", "good"), ("0031", "one"), ("0031", "two")):
        source.comment("project_logs", alpha, row_id, text)
    questions = next(obj["id"] for obj in source.objects("dataset") if obj["name"] == "questions")
    source.comment("dataset", questions, "case 0", "good")


def kept(row: Json) -> Json:
    return {
        key: row[key]
        for key in ("id", "created", *SPAN_IDS, *CONTENT["project_logs"])
        if row.get(key) is not None
    }


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[Damaged]:
    with tiny_pair() as pair:
        fill_more(pair.source)
        whole = run(pair.sandbox, tmp_path / "runs", "--verify", "--full")
        assert whole.code == 0, whole.last_words
        yield Damaged(pair)


def verified(pair: Pair, root: Path, *args: str) -> Tuple[Ended, Json]:
    ended = run(
        pair.sandbox,
        root,
        *args,
        "--json",
        program="verify",
        LOG_LEVEL="ERROR",
        MIGRATION_VERIFY_WAIT="0",
    )
    return ended, json.loads(ended.out)


def told(result: Json) -> Set[Found]:
    """What was found; ids inside of names and fields as <id>."""
    return {
        (
            difference["outcome"],
            difference["resource"],
            blurred(difference["name"]),
            difference.get("row", ""),
            tuple(blurred(path) for path in difference.get("fields", ())),
        )
        for difference in [*result["differences"], *result["only_in_dest"]]
    }


UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def blurred(text: str) -> str:
    return UUID.sub("<id>", text)


def test_what_was_moved_matches_at_every_depth_and_nothing_is_written(
    moved: Damaged, tmp_path: Path
) -> None:
    moved.pair.sandbox.clear_requests()
    for root in ("runs", "fresh"):
        for depth in (["--counts"], [], ["--sample", "7"], ["--full"]):
            ended, result = verified(moved.pair, tmp_path / root, *depth)
            assert (ended.code, result["equal"], told(result)) == (0, True, set()), ended.last_words
    assert moved.pair.sandbox.writes("globex") + moved.pair.sandbox.writes("acme") == []


@pytest.mark.parametrize("root", ["runs", "fresh"])
@pytest.mark.variants(1)
def test_each_damage_is_found_and_named_and_nothing_else(
    moved: Damaged, tmp_path: Path, root: str
) -> None:
    """All at once, in different places; with the run directory of the move and without one."""
    assert len({damage.about for damage in DAMAGES}) == len(DAMAGES) >= 30
    for damage in DAMAGES:
        damage.apply(moved)
    ended, result = verified(moved.pair, tmp_path / root, "--full")
    expected = {entry for damage in DAMAGES for entry in damage.found}
    assert (told(result) - expected, expected - told(result), ended.code) == (set(), set(), 1)
    lines = [
        json.loads(line)
        for path in (runs(tmp_path / root)[-1] / "verify").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    reported = [*result["differences"], *result["only_in_dest"]]
    assert len(lines) == len(reported) == sum(len(damage.found) for damage in DAMAGES)
    widened = {("acls", "extra"), ("experiments", "differs"), ("experiments", "extra")}
    assert {
        (difference["resource"], difference["outcome"]) for difference in result["security"]
    } == widened
    days = {kind: sum(map(Counter, by.values()), Counter()) for kind, by in result["days"].items()}
    assert len(days) == 3
    assert days == {kind: result["kinds"][kind]["outcomes"] for kind in days}


@pytest.mark.long
def test_each_damage_alone_is_found_when_it_is_done(moved: Damaged, tmp_path: Path) -> None:
    found: Set[Found] = set()
    for damage in DAMAGES:
        damage.apply(moved)
        ended, result = verified(moved.pair, tmp_path / "fresh", "--full")
        now = told(result)
        assert (damage.about, now - found, found - now, ended.code) == (
            damage.about,
            set(damage.found),
            set(),
            1,
        )
        found = now
