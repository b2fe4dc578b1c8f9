"""Objects that are created concurrently.

They are created after what they refer to, with a bound on requests, and reported in the source's
order.
"""

from __future__ import annotations

import json
import time
import unicodedata
from email.utils import formatdate
from pathlib import Path
from typing import Callable, List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import Pair, most_in_flight, report, run, runs, tiny_pair

LATENCY = {"list": 0.02, "create": 0.02, "btql": 0.02, "insert": 0.02}
CHAINS, LINKS = 12, 6


def fill(pair: Pair) -> List[str]:
    """Create chains of experiments, each based on the one before it.

    Returns their ids, those without a base first.
    """
    project = pair.source.create("project", {"name": "chains"})["id"]
    made: List[str] = []
    for number in range(CHAINS * LINKS):
        base = {"base_exp_id": made[-CHAINS]} if number >= CHAINS else {}
        made.append(
            pair.source.create(
                "experiment", {"project_id": project, "name": f"e{number:03}", **base}
            )["id"]
        )
        pair.source.insert("experiment", made[-1], [{"id": f"row {number}", "input": number}])
    return made


@pytest.mark.parametrize("most", ["1", "5"])
@pytest.mark.variants(1)
def test_experiments_follow_their_base_and_no_more_requests_are_in_flight_than_allowed(
    most: str, tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        ids = fill(pair)
        pair.sandbox.latency = LATENCY
        settings = {"MIGRATION_MAX_CONCURRENT": most, "MIGRATION_BATCH_SIZE": "10"}
        ended = run(
            pair.sandbox, tmp_path, "--projects", "chains", "--resources", "experiments", **settings
        )
        assert ended.code == 0, ended.last_words
        made = {obj["name"]: obj for obj in pair.dest.objects("experiment")}
        bases = {item["id"]: item["name"] for item in made.values()}
        assert [
            bases.get(made[f"e{number:03}"].get("base_exp_id")) for number in range(CHAINS * LINKS)
        ] == [
            f"e{number - CHAINS:03}" if number >= CHAINS else None
            for number in range(CHAINS * LINKS)
        ]
        patched = [
            request.path
            for request in pair.sandbox.requests
            if request.method == "PATCH" and request.path.startswith("/v1/experiment")
        ]
        peaks = [
            most_in_flight(entry for entry in pair.sandbox.requests if entry.org_name == org.name)
            for org in (pair.source, pair.dest)
        ]
        state = json.loads((runs(tmp_path)[0] / "chains" / "experiments_state.json").read_text())
        assert (patched, list(state["outcomes"]), peaks) == ([], ids, [int(most)] * 2)


def folding(
    pair: Pair, same: Callable[[str], str]
) -> Callable[[str, str, bytes], Optional[Answer]]:
    """The answers of a server that takes names of datasets for equal where `same` of both is."""

    def fold(method: str, path: str, raw: bytes) -> Optional[Answer]:
        if method != "POST" or path != "/v1/dataset":
            return None
        body = json.loads(raw)
        with pair.sandbox.store.lock:
            there = {same(obj["name"]): obj for obj in pair.dest.objects("dataset")}
            body["name"] = same(body["name"]) if same is not str.lower else body["name"]
            existing = there.get(same(body["name"])) or pair.dest.create("dataset", body)
        return Answer(200, json.dumps(existing).encode())

    return fold


@pytest.mark.parametrize(
    ("same", "names"),
    [
        (str.lower, ["Case", "case"]),
        (str.strip, ["padded", "padded "]),
        (str.strip, [" blanks", "blanks "]),
        (lambda name: name[:255], ["n" * 299, "n" * 300]),
        (lambda name: unicodedata.normalize("NFC", name), ["caf\u00e9", "cafe\u0301"]),
    ],
)
@pytest.mark.variants(1)
def test_two_objects_whose_names_the_destination_treats_as_one_are_not_mixed(
    same: Callable[[str], str], names: List[str], tmp_path: Path
) -> None:
    """A POST with a name that exists returns the existing object.

    No document says which names the server takes for equal; here two names are equal if `same`
    returns the same for both.
    """
    with tiny_pair() as pair:
        project = pair.source.create("project", {"name": "names"})["id"]
        for name in names:
            made = pair.source.create("dataset", {"project_id": project, "name": name})["id"]
            pair.source.insert("dataset", made, [{"id": "the same id", "input": name}])

        pair.sandbox.refuse = folding(pair, same)
        arguments = ("--projects", "names", "--resources", "datasets")
        ends = [
            run(pair.sandbox, tmp_path, *arguments, *more).code for more in ((), (), ("--new-run",))
        ]
        (dataset,) = pair.dest.objects("dataset")
        (row,) = pair.dest.rows("dataset", dataset["id"])
        failed = {
            item["name"]: item["reason"]
            for item in report(tmp_path)["problems"]
            if item["outcome"] == "failed"
        }
        assert (ends, len(failed), row["input"] in set(names) - set(failed)) == (
            [1, 1, 1],
            1,
            True,
        ), (failed, row["input"])
        assert all(
            "another object of the source; rename one of the two" in reason
            for reason in failed.values()
        ), failed


def test_two_views_whose_names_the_destination_treats_as_one_are_not_mixed(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        project = pair.source.create("project", {"name": "names"})["id"]
        owner = {"object_type": "project", "object_id": project, "view_type": "logs"}
        for name in ("Case", "case"):
            pair.source.create("view", {**owner, "name": name, "view_data": {"of": name}})

        def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
            if (method, path) != ("POST", "/v1/view"):
                return None
            body = json.loads(raw)
            alike = [
                obj
                for obj in pair.dest.objects("view")
                if obj["name"] != body["name"] and obj["name"].lower() == body["name"].lower()
            ]
            return Answer(200, json.dumps(alike[0]).encode()) if alike else None

        pair.sandbox.refuse = refuse
        arguments = ("--projects", "names", "--resources", "views")
        for _ in range(2):
            done = run(pair.sandbox, tmp_path, *arguments)
            (view,) = [obj for obj in pair.dest.objects("view") if obj["name"] in ("Case", "case")]
            assert (done.code, view["view_data"]) == (1, {"of": view["name"]}), done.out
            (failed,) = report(tmp_path)["problems"]
            assert "another object of the source; rename one of the two" in failed["reason"]


def test_a_created_object_is_recognized_though_a_gateways_clock_is_ahead(
    tmp_path: Path,
) -> None:
    """Two experiments whose base is the other one are created without it and completed later.

    The second step updates them only if they are recognized as created by this run.
    """
    with tiny_pair() as pair:
        project = pair.source.create("project", {"name": "ring"})["id"]
        ids = [
            pair.source.create("experiment", {"project_id": project, "name": name})["id"]
            for name in ("first", "a", "b")
        ]
        for object_id, other in (ids[1:], ids[:0:-1]):
            pair.source.patch("experiment", object_id, {"base_exp_id": other})

        def ahead(method: str, path: str, raw: bytes) -> Optional[Answer]:
            if method != "POST" or path != "/v1/experiment":
                return None
            made = pair.dest.create("experiment", json.loads(raw))
            return Answer(
                200,
                json.dumps(made).encode(),
                headers={"Date": formatdate(time.time() + 3600, usegmt=True)},
            )

        pair.sandbox.refuse = ahead
        ended = run(
            pair.sandbox,
            tmp_path,
            "--projects",
            "ring",
            "--resources",
            "experiments",
            "--no-verify",
        )
        made = {obj["name"]: obj for obj in pair.dest.objects("experiment")}
        bases = [made[item]["base_exp_id"] == made[other]["id"] for item, other in ("ab", "ba")]
        assert (ended.code, bases) == (0, [True, True]), ended.last_words


def test_outcomes_of_many_objects_are_saved_in_larger_batches(
    tmp_path: Path,
) -> None:
    """Each save rewrites the whole file of outcomes, so with many objects it must be rarer."""
    with tiny_pair() as pair:
        project = pair.source.create("project", {"name": "many"})["id"]
        for number in range(240):
            pair.source.create("dataset", {"project_id": project, "name": f"d{number:03}"})
        written, most = set(), []

        def watch(method: str, path: str, raw: bytes) -> Optional[Answer]:
            if method == "POST" and path == "/v1/dataset":
                text = (runs(tmp_path)[0] / "many" / "datasets_state.json").read_text()
                written.add(text)
                most.append(len(json.loads(text)["intended"]))
            return None

        pair.sandbox.refuse = watch
        arguments = ("--projects", "many", "--resources", "datasets", "--no-rows", "--no-verify")
        ended = run(pair.sandbox, tmp_path, *arguments, MIGRATION_CHECKPOINT_INTERVAL="1")
        assert ended.code == 0, ended.last_words
        assert len(pair.dest.objects("dataset")) == 240
        assert (19 <= len(written) <= 40, max(most)) == (True, 2 * 12), (len(written), max(most))
