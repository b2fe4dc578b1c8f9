"""Fields that an older data plane refuses, at any depth and in any known wording of the refusal."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from bt_migrate.model.references import value_at
from bt_migrate.objects.unknown_fields import unknown_places
from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import (
    DEST_KEY,
    INLINE,
    Ended,
    Pair,
    WatchedSandbox,
    findings,
    function,
    recorded_pair,
    run,
)

Json = Dict[str, Any]
PARAMS = ("prompt_data", "options", "params")
Place = Tuple[Any, ...]

# The wordings ----------------------------------------------------------------------------------

BODY = {
    "name": "n",
    "tags": ["a"],
    "prompt_data": {
        "options": {"params": {"x": 1, "y": 2}},
        "prompt": {"messages": [{"role": "user", "z": 1}, {"z": 2}]},
    },
}
X, Y, TAGS = (*PARAMS, "x"), (*PARAMS, "y"), ("tags",)


def issue(*keys: str, path: Any = PARAMS) -> Json:
    words = ", ".join(f"'{key}'" for key in keys)
    text = f"Unrecognized key(s) in object: {words}"
    return {
        "code": "unrecognized_keys",
        "keys": list(keys),
        "path": list(path),
        "message": text,
    }


WORDINGS = [
    ("Extraneous key 'tags' at path []", [TAGS]),
    ("Extraneous key 'tags' at path [] [user_email=a@b.example] [user_org=o]", [TAGS]),
    ("""Extraneous key 'x' at path ["prompt_data","options","params"]""", [X]),
    ("""Extraneous key 'x' at path ['prompt_data', 'options', 'params']""", [X]),
    ("Extraneous key 'x' at path [prompt_data,options,params]", [X]),
    ("Extraneous key 'x' at path prompt_data.options.params", [X]),
    (
        """Extraneous key 'z' at path ["prompt_data","prompt","messages",1]""",
        [("prompt_data", "prompt", "messages", 1, "z")],
    ),
    ("Extraneous key 'x' at path [prompt_data,options,params]; Extraneous key 'tags' at path []",
     [X, TAGS]),
    ("Extraneous keys 'x', 'y' at path [prompt_data,options,params]", [X, Y]),
    (json.dumps([issue("x", "y")], indent=2), [X, Y]),
    (json.dumps([issue("x"), issue("tags", path=[])]), [X, TAGS]),
    (
        json.dumps({"Code": "BadRequestError", "Message": json.dumps({"errors": [issue("x")]})}),
        [X],
    ),
    ("Unrecognized key(s) in object: 'tags'", [TAGS]),
    ("""Validation: Unrecognized key(s) in object: 'x', 'y' at "prompt_data.options.params\"""",
     [X, Y]),
    ('Unrecognized keys: "x", "y"', [X, Y]),
    # two places have this key, and the text does not say which one is refused
    ("Unrecognized key(s) in object: 'z'", []),
    # a variant of a union refuses the fields of the other ones
    (json.dumps([{"code": "invalid_union", "unionErrors": [{"issues": [issue("x")]}]}]), []),
    ("Extraneous key 'other' at path []", []),
    ("Extraneous key 'x' at path []", []),
    ("function_data: field 'x' is not a valid text", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "places"), WORDINGS)
def test_a_refusal_names_the_fields_of_the_body(text: str, places: List[Place]) -> None:
    assert unknown_places(text, BODY) == places


# Whole runs ------------------------------------------------------------------------------------


class Strict:
    """A destination that does not know some fields; `knows`: after its upgrade."""

    def __init__(self, *unknown: Place, at_once: bool = True, zod: bool = False) -> None:
        self.unknown, self.at_once, self.zod = unknown, at_once, zod
        self.knows = False
        self.refused = 0

    def __call__(self, method: str, path: str, raw: bytes) -> Optional[Answer]:
        if self.knows or method not in ("POST", "PUT", "PATCH") or not path.startswith("/v1/"):
            return None
        body = json.loads(raw)
        found = [place for place in self.unknown if _holds(body, place)]
        if not found:
            return None
        self.refused += 1
        told = found if self.at_once else found[:1]
        if self.zod:
            issues = [issue(place[-1], path=place[:-1]) for place in told]
            return Answer(400, json.dumps(issues, indent=2).encode(), "text/plain")
        lines = [
            f"Extraneous key '{place[-1]}' at path {json.dumps(list(place[:-1]))}" for place in told
        ]
        return Answer(400, "\n".join(lines).encode(), "text/plain")


def _holds(body: Any, place: Place) -> bool:
    holder = value_at(body, place[:-1])
    return isinstance(holder, dict) and place[-1] in holder


@contextlib.contextmanager
def moved_to(dest_refuses: Strict) -> Iterator[Tuple[Pair, Any]]:
    """A source with a project, and a destination on another server."""
    with recorded_pair() as pair, WatchedSandbox() as other:
        dest = other.add_org("globex", api_key=DEST_KEY, users=[])
        other.refuse = dest_refuses
        pair.source.create("project", {"name": "alpha"})
        yield Pair(other, pair.source, dest), pair.sandbox


def moved(pair: Pair, source: Any, root: Path, *args: str) -> Ended:
    return run(source, root, "--verify", *args, BT_DEST_URL=pair.sandbox.url)


def fill(pair: Pair) -> None:
    """A prompt and a function with fields that only newer servers know, and a dataset with rows."""
    org = pair.source
    alpha = org.objects("project")[0]["id"]
    data = {"options": {"params": {"x": 1, "temperature": 0.5}}, "template": "t"}
    org.create("prompt", {"project_id": alpha, "name": "P", "slug": "p", "prompt_data": data})
    code = {**INLINE, "data": {**INLINE["data"], "y": {"deep": 1}}}
    function(org, alpha, "f", code, tags=["a"])
    dataset = org.create("dataset", {"project_id": alpha, "name": "d", "metadata": {"k": 1}})
    org.insert("dataset", dataset["id"], [{"id": "r", "input": 1}])


LACKED = [("F", "function_data.data.y"), ("F", "tags"), ("P", "prompt_data.options.params.x")]


def told(root: Path) -> List[Tuple[str, str]]:
    found = findings(root, "field_not_taken")
    assert all(finding["severity"] == "loss" for finding in found)
    return sorted((finding["name"], finding["path"]) for finding in found)


def of(org: Any, kind: str) -> Json:
    """The object of the kind; of functions, the one that is no prompt."""
    return next(dict(obj) for obj in org.objects(kind) if obj.get("slug") in (None, kind[0]))


def versions(pair: Pair) -> List[str]:
    return [of(pair.dest, kind)["_xact_id"] for kind in ("prompt", "function")]


@pytest.mark.parametrize(
    ("at_once", "zod", "history"),
    [(True, False, False), (False, False, True), (True, True, False)],
)
@pytest.mark.variants(1)
def test_nested_fields_that_are_not_known_are_left_out_named_and_added_after_an_upgrade(
    at_once: bool, zod: bool, history: bool, tmp_path: Path
) -> None:
    strict = Strict(X, ("function_data", "data", "y"), TAGS, at_once=at_once, zod=zod)
    root, words = tmp_path / "state", ["--history", "all"] if history else []
    with moved_to(strict) as (pair, source):
        fill(pair)
        done = moved(pair, source, root, *words)
        assert (done.code, told(root)) == (0, LACKED), done.out + done.err
        prompt, written = of(pair.dest, "prompt"), of(pair.dest, "function")
        assert prompt["prompt_data"]["options"] == {"params": {"temperature": 0.5}}
        assert written["function_data"]["data"] == INLINE["data"]
        assert [row["id"] for row in pair.dest.rows("dataset", of(pair.dest, "dataset")["id"])] == [
            "r"
        ]
        # A later start asks once more, and writes no version that is equal to the last one.
        before, strict.refused = versions(pair), 0
        done = moved(pair, source, root, *words)
        assert (done.code, told(root)) == (0, LACKED), done.out + done.err
        assert versions(pair) == before
        assert 0 < strict.refused <= 3
        strict.knows = True
        done = moved(pair, source, root, *words)
        assert (done.code, told(root)) == (0, []), done.out + done.err
        assert of(pair.dest, "prompt")["prompt_data"] == of(pair.source, "prompt")["prompt_data"]
        assert of(pair.dest, "function")["tags"] == ["a"]
        # From now on the field is expected.
        prompt = of(pair.dest, "prompt")
        other = {"prompt_data": {"options": {"params": {"x": 2}}}}
        pair.dest.patch("prompt", prompt["id"], other)
        assert moved(pair, source, root, *words).code == 1


def test_a_changed_object_is_updated_without_the_fields_that_are_not_known(tmp_path: Path) -> None:
    strict = Strict(X, ("function_data", "data", "y"), TAGS)
    root, sync = tmp_path / "state", ("--since-last",)
    with moved_to(strict) as (pair, source):
        fill(pair)
        assert moved(pair, source, root, *sync).code == 0
        pair.source.patch("prompt", of(pair.source, "prompt")["id"], {"description": "new"})
        done = moved(pair, source, root, *sync)
        assert (done.code, told(root)) == (0, LACKED), done.out + done.err
        assert of(pair.dest, "prompt")["description"] == "new"
        before = versions(pair)
        done = moved(pair, source, root, *sync)
        assert (done.code, told(root), versions(pair)) == (0, LACKED, before), done.out


def test_settings_of_a_project_lack_only_what_is_not_known(tmp_path: Path) -> None:
    root = tmp_path / "state"
    with moved_to(Strict(("settings", "blind_reviews"))) as (pair, source):
        project = of(pair.source, "project")["id"]
        settings = {"comparison_key": "input", "blind_reviews": True}
        pair.source.patch("project", project, {"settings": settings})
        for _ in range(2):
            done = moved(pair, source, root)
            assert done.code == 0, done.out + done.err
            assert told(root) == [("alpha", "settings.blind_reviews")]
            assert of(pair.dest, "project")["settings"] == {"comparison_key": "input"}


def test_a_field_of_the_natural_key_or_of_what_grants_or_acts_is_never_left_out(
    tmp_path: Path,
) -> None:
    """Without it the object would be another one, grant more, or alert for more."""
    strict = Strict(("slug",), ("permission",), ("config", "filter"), ("restrict_object_type",))
    root = tmp_path / "state"
    with moved_to(strict) as (pair, source):
        org = pair.source
        alpha = of(org, "project")["id"]
        org.create("prompt", {"project_id": alpha, "name": "P", "slug": "p"})
        group = org.create("group", {"name": "people"})["id"]
        acl = {"object_type": "project", "object_id": alpha, "group_id": group}
        limit = {"permission": "read", "restrict_object_type": "dataset"}
        org.create("acl", {**acl, **limit})
        alert = {"type": "webhook", "url": "https://hook.example"}
        config = {"event_type": "logs", "filter": "x", "action": alert}
        org.create("project_automation", {"project_id": alpha, "name": "a", "config": config})
        done = moved(pair, source, root)
        assert (done.code, told(root)) == (1, []), done.out + done.err
        kinds = ("prompt", "acl", "project_automation")
        assert [obj for kind in kinds for obj in pair.dest.objects(kind)] == []
        assert len(findings(root, "not_created")) == 3
