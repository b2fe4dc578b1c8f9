"""A destination damaged on purpose: verify finds each damage, names it, and finds nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Iterator, List, Set, Tuple

import pytest

from bt_migrate.sandbox.data import inserts as inserts
from bt_migrate.sandbox.data.rows import CONTENT, SPAN_IDS
from tests.support.damage import (
    LOGS,
    Damage,
    Damaged,
    Found,
    Json,
    config,
    create,
    delete_where,
    drop,
    edited,
    moved_row,
    new_acl,
    other_bytes,
    patched,
    put,
    removed,
    rewrite_bytes,
    same_bytes,
    swap_inputs,
)
from tests.support.orgs import INLINE, Ended, Pair, run, runs, tiny_pair

MORE = {
    "flag": True,
    "nothing": None,
    "list": [1, 2],
    "text": "é",
    "at": "2026-01-15T08:30:00+01:00",
    "empty": [],
}  # metadata
QUERY = {
    "event_type": "async_query",
    "object_type": "project_logs",
    "object_id": "o",
    "query": "select: *",
    "format": "jsonl",
    "created_by_user_id": "u",
}
DAMAGES: List[Damage] = [
    removed(*LOGS, "0100"),
    removed("experiments", "first", "e3"),
    removed("datasets", "questions", "case 7"),
    Damage(
        "row added",
        lambda w: w.write(*LOGS, {"id": "theirs", "input": 1}),
        (("extra", "rows of logs", "Alpha/α", "theirs", ()),),
    ),
    Damage(
        "row doubled",
        lambda w: w.write(*LOGS, {**w.row(*LOGS, "0101"), "id": "0101 again"}),
        (("extra", "rows of logs", "Alpha/α", "0101 again", ()),),
    ),
    Damage(
        "row moved to another experiment",
        moved_row,
        (
            ("missing", "rows of experiments", "first", "e9", ()),
            ("extra", "rows of experiments", "middle", "e9 moved", ()),
        ),
    ),
    edited("text changed", *LOGS, "0102", put("input", "text 102"), "input"),
    edited(
        "one deep field changed",
        *LOGS,
        "0010",
        put("input", "nulls", 1, "a", 0),
        "input.nulls[1].a",
    ),
    edited(
        "int turned to float",
        "experiments",
        "last",
        "e1",
        put("output", "a", float(2**64)),
        "output.a",
    ),
    edited(
        "int changed beyond the precision of floats",
        "experiments",
        "last",
        "e2",
        put("output", "a", 2**64 + 3),
        "output.a",
    ),
    edited("sign of zero lost", "datasets", "answers", "case 1", put("input", "w", 0.0), "input.w"),
    edited(
        "number turned to text", "datasets", "answers", "case 2", put("input", "q", "2"), "input.q"
    ),
    edited("true turned to 1", *LOGS, "0011", put("metadata", "flag", 1), "metadata.flag"),
    edited("null turned to absent", *LOGS, "0012", drop("metadata", "nothing"), "metadata.nothing"),
    edited("key added", *LOGS, "0013", put("metadata", "more", None), "metadata.more"),
    edited(
        "order of a list changed",
        *LOGS,
        "0014",
        put("metadata", "list", [2, 1]),
        "metadata.list[0]",
        "metadata.list[1]",
    ),
    edited("text normalized", *LOGS, "0015", put("metadata", "text", "e\u0301"), "metadata.text"),
    edited(
        "timestamp a second later",
        *LOGS,
        "0016",
        put("metadata", "at", "2026-01-15T07:30:01Z"),
        "metadata.at",
    ),
    edited(
        "timestamp in another zone", *LOGS, "0017", put("metadata", "at", "2026-01-15T07:30:00Z")
    ),
    edited(
        "created on another day",
        *LOGS,
        "0103",
        put("created", "2025-09-01T00:00:00.000Z"),
        "created",
    ),
    edited(
        "created a millisecond later",
        *LOGS,
        "0018",
        put("created", "2025-10-31T08:30:00.001Z"),
        "created",
    ),
    edited(
        "created a millisecond later, on the next day",
        *LOGS,
        "0111",
        put("created", "2025-11-01T00:00:00.000Z"),
        "created",
    ),
    Damage(
        "contents of two rows swapped",
        swap_inputs,
        tuple(("differs", "rows of logs", "Alpha/α", row, ("input",)) for row in ("0112", "0113")),
    ),
    edited(
        "keys in another order", *LOGS, "0020", put("metadata", dict(reversed(list(MORE.items()))))
    ),
    edited("null score turned to 0", *LOGS, "0023", put("scores", "none", 0), "scores.none"),
    edited(
        "empty list turned to null", *LOGS, "0024", put("metadata", "empty", None), "metadata.empty"
    ),
    edited("expected lost", "datasets", "questions", "case 5", drop("expected"), "expected"),
    edited("tag added", *LOGS, "0104", put("tags", ["x", "y"]), "tags"),
    edited("parent lost", *LOGS, "0019", put("span_parents", []), "span_parents"),
    edited("other root", *LOGS, "0105", put("root_span_id", "s0000"), "root_span_id"),
    edited("score changed", "experiments", "middle", "e4", put("scores", "s", 0.5), "scores.s"),
    edited("metric lost", *LOGS, "0106", drop("metrics", "end"), "metrics.end"),
    edited(
        "error and facets lost",
        "logs",
        "beta",
        "0007",
        lambda row, _: (row.pop("error"), row.pop("facets")),
        "error",
        "facets",
    ),
    edited(
        "span renamed", *LOGS, "0107", put("span_attributes", "name", "m"), "span_attributes.name"
    ),
    edited("context lost", *LOGS, "0108", drop("context"), "context"),
    edited(
        "origin of the wrong object",
        "experiments",
        "middle",
        "e6",
        lambda row, w: row["origin"].update(object_id=w.find("dataset", "answers")["id"]),
        "origin.object_id",
    ),
    edited("origin lost", "experiments", "middle", "e7", drop("origin"), "origin"),
    edited(
        "reference to the wrong object",
        "logs",
        "beta",
        "0009",
        lambda row, w: row["metadata"].update(which=w.find("dataset", "questions")["id"]),
        "metadata.which",
    ),
    edited(
        "reference left as the source's",
        *LOGS,
        "0009",
        lambda row, w: row["metadata"].update(which=w.source_id("dataset", "answers")),
        "metadata.which",
    ),
    edited("attachment with another byte", "logs", "beta", "0020", other_bytes, "input.own.key"),
    edited("attachment uploaded again", "logs", "beta", "0021", same_bytes),
    Damage(
        "bytes replaced",
        rewrite_bytes,
        (("differs", "rows of logs", "beta", "0022", ("input.own.key",)),),
    ),
    edited(
        "attachment renamed",
        "logs",
        "beta",
        "0023",
        put("input", "own", "filename", "b.txt"),
        "input.own.filename",
    ),
    edited(
        "attachment lost",
        "datasets",
        "answers",
        "case 3",
        put("metadata", "file", None),
        "metadata.file",
    ),
    Damage(
        "comment lost",
        lambda w: w.forget_comments(*LOGS, "0030", lambda _: {}),
        (("differs", "rows of logs", "Alpha/α", "0030", ("comments",)),),
    ),
    Damage(
        "one of two comments lost",
        lambda w: w.forget_comments(*LOGS, "0031", lambda old: dict(list(old.items())[:1])),
        (("differs", "rows of logs", "Alpha/α", "0031", ("comments.<id>",)),),
    ),
    Damage(
        "comment changed",
        lambda w: w.forget_comments(
            "datasets",
            "questions",
            "case 0",
            lambda old: {key: {**item, "comment": {"text": "bad"}} for key, item in old.items()},
        ),
        (("differs", "rows of datasets", "questions", "case 0", ("comments.<id>[1]",)),),
    ),
    Damage(
        "ACL widened", new_acl, (("extra", "acls", "delete on dataset for group <id>", "", ()),)
    ),
    Damage(
        "ACL lost",
        delete_where("acl", object_type="organization"),
        (("missing", "acls", "read on organization for group <id>", "", ()),),
    ),
    patched(
        "experiment made public",
        "experiment",
        "middle",
        "experiments",
        lambda *_: {"public": True},
        "public",
    ),
    patched(
        "base of the wrong experiment",
        "experiment",
        "last",
        "experiments",
        lambda _, w: {"base_exp_id": w.find("experiment", "first")["id"]},
        "base_exp_id",
    ),
    patched(
        "project described otherwise",
        "project",
        "beta",
        "projects",
        lambda *_: {"description": "other"},
        "description",
    ),
    patched(
        "project setting",
        "project",
        "Alpha/α",
        "project_settings",
        lambda obj, _: {"settings": {**obj["settings"], "comparison_key": "x"}},
        "settings.comparison_key",
    ),
    patched(
        "role with more rights",
        "role",
        "inner",
        "roles",
        lambda *_: {"add_member_permissions": [{"permission": "delete"}]},
        "member_permissions",
    ),
    patched(
        "group with fewer members",
        "group",
        "people",
        "groups",
        lambda obj, _: {"remove_member_users": obj["member_users"]},
        "member_users",
    ),
    patched(
        "prompt text",
        "prompt",
        "ask",
        "prompts",
        lambda *_: {"prompt_data": {"prompt": {"type": "completion", "content": "{{p}}"}}},
        "prompt_data.prompt.content",
    ),
    patched(
        "function code",
        "function",
        "scorer",
        "functions",
        lambda *_: {"function_data": {**INLINE, "data": {**INLINE["data"], "code": "0"}}},
        "function_data.data.code",
    ),
    patched(
        "score of other groups",
        "project_score",
        "Rating",
        "project_scores",
        config(visibility={"groups": []}),
        "config.visibility.groups",
    ),
    patched(
        "online score scores more",
        "project_score",
        "Online",
        "project_scores",
        lambda obj, _: {"config": {"online": {"sampling_rate": 1}}},
        "config.online.sampling_rate",
    ),
    patched(
        "tag of another colour",
        "project_tag",
        "red",
        "project_tags",
        lambda *_: {"color": "#00FF00"},
        "color",
    ),
    patched(
        "frame of another site",
        "span_iframe",
        "frame",
        "span_iframes",
        lambda *_: {"url": "https://other.example"},
        "url",
    ),
    patched(
        "MCP server of another site",
        "mcp_server",
        "mcp",
        "mcp_servers",
        lambda *_: {"url": "https://other.example"},
        "url",
    ),
    patched(
        "agent int for float",
        "agent",
        "agent",
        "agents",
        lambda *_: {"metadata": {"k": 1}},
        "metadata.k",
    ),
    patched(
        "dataset metadata",
        "dataset",
        "questions",
        "datasets",
        lambda *_: {"metadata": {"n": 2**60}},
        "metadata.n",
    ),
    patched(
        "alert at other times",
        "project_automation",
        "Alert",
        "project_automations",
        config(interval_seconds=61),
        "config.interval_seconds",
    ),
    patched(
        "environment",
        "environment",
        "Production",
        "environments",
        lambda *_: {"description": "?"},
        "description",
    ),
    patched(
        "secret of another type",
        "ai_secret",
        "OPENAI",
        "ai_secrets",
        lambda *_: {"type": "anthropic"},
        "type",
    ),
    Damage("view lost", delete_where("view", name="mine"), (("missing", "views", "mine", "", ()),)),
    Damage(
        "tag lost",
        delete_where("project_tag", name="blue"),
        (("missing", "project_tags", "blue", "", ()),),
    ),
    patched(
        "settings where the source has none",
        "project",
        "beta",
        "project_settings",
        lambda *_: {"settings": {"comparison_key": "x"}},
        "settings",
    ),
    Damage(
        "public experiment added",
        create("experiment", "beta", name="theirs", public=True),
        (("extra", "experiments", "theirs", "", ()),),
    ),
    Damage(
        "the server's own note of a query",
        create("project_automation", "beta", name="query", config=QUERY),
        (),
    ),
    Damage(
        "dataset added",
        create("dataset", "beta", name="theirs"),
        (("extra", "datasets", "theirs", "", ()),),
    ),
    Damage(
        "prompt added",
        create(
            "prompt",
            "beta",
            name="P",
            slug="p",
            prompt_data={"prompt": {"type": "completion", "content": ""}},
        ),
        (("extra", "prompts", "P", "", ()),),
    ),
    Damage(
        "tag added in a project",
        create("project_tag", "beta", name="theirs"),
        (("extra", "project_tags", "theirs", "", ()),),
    ),
    Damage(
        "role added",
        lambda w: w.pair.dest.create("role", {"name": "theirs"}),
        (("extra", "roles", "theirs", "", ()),),
    ),
    Damage(
        "project added",
        lambda w: w.pair.dest.create("project", {"name": "theirs"}),
        (("extra", "projects", "theirs", "", ()),),
    ),
]


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
        for difference in result["differences"]
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
    assert len(lines) == len(result["differences"]) == sum(len(damage.found) for damage in DAMAGES)
    widened = {("acls", "extra"), ("experiments", "differs"), ("experiments", "extra")}
    assert {
        (difference["resource"], difference["outcome"]) for difference in result["security"]
    } == widened


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
