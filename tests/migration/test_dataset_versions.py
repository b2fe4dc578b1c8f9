"""Datasets in time: snapshots, and pins of experiments, name the same states on both sides."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.faults import Fault
from tests.support.claims import untrue_claims
from tests.support.compare_orgs import differences
from tests.support.kills import Kill, at_requests, seeded_kills, starts
from tests.support.orgs import (
    ANA,
    DEST_KEY,
    REPOSITORY,
    SOURCE_KEY,
    TIME_LIMIT_S,
    Pair,
    WatchedSandbox,
    example_pair,
    findings,
    report,
    run,
    runs,
)
from tests.support.row_runs import comment_as_server
from tests.support.sdk_routes import serve_sdk
from tests.support.undoing import undo

VERSIONS = "--dataset-versions"
# Small pages and batches: a state of 60 rows needs many requests.
SMALL = {"MIGRATION_EVENTS_FETCH_LIMIT": "20", "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "15"}
STATES = ("first", "second", "third")
# An older data plane has no snapshots: the states that they name cannot be seen.
SNAPSHOTS = pytest.mark.recorded


def row(number: int, text: str) -> Dict[str, Any]:
    return {"id": f"row {number}", "input": {"n": number}, "expected": text}


def gone(number: int) -> Dict[str, Any]:
    return {"id": f"row {number}", "_object_delete": True}


def of(case: Dict[str, Any], dataset_id: str) -> Dict[str, Any]:
    """A row of an experiment, made from a version of a row of a dataset."""
    version = {"id": case["id"], "_xact_id": case["_xact_id"]}
    origin = {"object_type": "dataset", "object_id": dataset_id, **version}
    row_id = f"{case['id']} at {case['_xact_id']}"
    return {"id": row_id, "input": case["input"], "expected": case["expected"], "origin": origin}


def origins(org: Any) -> List[Tuple[str, Any, Any]]:
    """(row, what it expects, what its origin says at its version) of the experiment's rows."""
    (dataset,), (experiment,) = org.objects("dataset"), org.objects("experiment")
    found = []
    for entry in org.rows("experiment", experiment["id"]):
        version = entry["origin"].get("_xact_id")
        then = {r["id"]: r["expected"] for r in org.rows("dataset", dataset["id"], version)}
        said = then.get(entry["origin"]["id"]) if version else None
        found.append((entry["id"], entry["expected"], said))
    return found


def newest(org: Any, dataset_id: str) -> str:
    return max(entry["_xact_id"] for entry in org.rows("dataset", dataset_id))


@contextlib.contextmanager
def timed_pair(rows: int = 6) -> Iterator[Pair]:
    """A dataset with three snapshots, an experiment pinned to the second, and rows after the third.

    Rows are edited, added, deleted and brought back between them.
    """
    with WatchedSandbox() as sandbox:
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[{"email": ANA}])
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=[{"email": ANA}])
        project = source.create("project", {"name": "Alpha"})["id"]
        dataset = source.create("dataset", {"project_id": project, "name": "cases"})["id"]
        last = rows + 1
        steps = (
            [[row(n, "one") for n in range(rows)]],
            [[row(1, "two"), row(last, "two")], [gone(3)], [row(last + 1, "two, later")]],
            [[row(0, "three"), gone(last), row(3, "three")]],
            [[row(4, "now"), gone(2), row(last + 2, "now")]],
        )
        pins = []
        named = {}
        for inserts in steps:
            for events in inserts:
                source.insert("dataset", dataset, events)
                for entry in source.rows("dataset", dataset):
                    named[entry["id"], entry["_xact_id"]] = entry
            pins.append(newest(source, dataset))
        for name, xact in zip(STATES, pins):
            snapshot = {"dataset_id": dataset, "name": name, "xact_id": xact}
            source.create("dataset_snapshot", snapshot)
        pinned = {"dataset_id": dataset, "dataset_version": pins[1]}
        made = {"project_id": project, "name": "evaluated", **pinned}
        experiment = source.create("experiment", made)["id"]
        # Each version of each row is the origin of a row, also one that no snapshot shows.
        source.insert("dataset", dataset, [row(5, "between")])
        (between,) = [e for e in source.rows("dataset", dataset) if e["id"] == "row 5"]
        source.insert("dataset", dataset, [row(5, "at last")])
        source.insert(
            "experiment", experiment, [of(e, dataset) for e in (*named.values(), between)]
        )
        yield Pair(sandbox, source, dest)


def take_snapshot(org: Any, name: str) -> str:
    """Returns the id of the dataset."""
    dataset_id = str(org.objects("dataset")[0]["id"])
    snapshot = {"dataset_id": dataset_id, "name": name, "xact_id": newest(org, dataset_id)}
    org.create("dataset_snapshot", snapshot)
    return dataset_id


def snapshots(org: Any) -> Dict[str, str]:
    return {entry["name"]: entry["xact_id"] for entry in org.objects("dataset_snapshot")}


@SNAPSHOTS
def test_the_example_moves_with_all_states_of_its_datasets(tmp_path: Path) -> None:
    with example_pair() as pair:
        done = run(pair.sandbox, tmp_path / "runs", VERSIONS, "--verify")
        assert (done.code, differences(pair, versions=True)) == (0, []), done.last_words
        assert report(tmp_path / "runs")["verification"]["equal"]


@SNAPSHOTS
def test_comments_that_are_newer_than_a_state_arrive(tmp_path: Path) -> None:
    with timed_pair() as pair:
        dataset_id = dataset_of(pair.source)
        newest_row = max(pair.source.rows("dataset", dataset_id), key=lambda r: r["_xact_id"])
        take_snapshot(pair.source, "now")
        comment = {"id": "c", "created": newest_row["created"], "comment": {"text": "later"}}
        comment_as_server(pair, "dataset", dataset_id, newest_row["id"], comment)
        done = run(pair.sandbox, tmp_path / "runs", VERSIONS, "--verify")
        assert (done.code, differences(pair, versions=True)) == (0, []), done.last_words
        found = pair.dest.comments("dataset", dataset_of(pair.dest))
        assert [[c["comment"]["text"] for c in some] for some in found.values()] == [["later"]]


def without_uploads(method: str, path: str, body: bytes) -> Optional[Answer]:
    is_upload = (method, path) == ("POST", "/attachment")
    return Answer(200, b"{}", "application/json") if is_upload else None


def test_a_row_that_lacks_an_attachment_and_has_a_version_that_is_forgotten_is_completed(
    tmp_path: Path,
) -> None:
    with timed_pair() as pair:
        (experiment,) = pair.source.objects("experiment")
        row_of_first = pair.source.rows("experiment", experiment["id"])[0]
        file = pair.source.attach(b"bytes", "f.txt", "text/plain")
        filed = {"id": "with file", "input": file, "origin": row_of_first["origin"]}
        pair.source.insert("experiment", experiment["id"], [filed])
        pair.sandbox.refuse = without_uploads
        assert run(pair.sandbox, tmp_path / "runs", VERSIONS).code == 1
        pair.sandbox.refuse = None
        done = run(pair.sandbox, tmp_path / "fresh", "--verify")
        assert (done.code, report(tmp_path / "fresh")["problems"]) == (0, []), done.last_words


@SNAPSHOTS
def test_a_state_whose_attachment_cannot_be_copied_is_left_and_so_are_the_later_ones(
    tmp_path: Path,
) -> None:
    with timed_pair() as pair:
        dataset_id = dataset_of(pair.source)
        file = pair.source.attach(b"bytes", "f.txt", "text/plain")
        for name, value in (("with file", file), ("after it", "text")):
            pair.source.insert("dataset", dataset_id, [{"id": name, "input": value}])
            take_snapshot(pair.source, name)
        pair.sandbox.refuse = without_uploads
        assert run(pair.sandbox, tmp_path / "runs", VERSIONS).code == 1
        pair.sandbox.refuse = None
        done = run(pair.sandbox, tmp_path / "runs", VERSIONS, "--verify")
        assert done.code == 0, done.last_words
        assert sorted(snapshots(pair.dest)) == ["after it", *STATES]


def test_without_the_option_only_the_present_state_has_a_snapshot(tmp_path: Path) -> None:
    with timed_pair() as pair:
        take_snapshot(pair.source, "now")
        for root in (tmp_path / "first", tmp_path / "again"):
            pair.sandbox.clear_requests()
            done = run(pair.sandbox, root, "--verify")
            assert (done.code, differences(pair)) == (0, []), done.last_words
            assert list(snapshots(pair.dest)) == ["now"]
            left = findings(root, "state_not_there")
            assert [(found["name"], found["severity"]) for found in left] == [
                (name, "loss") for name in STATES
            ]
            pins = [found["path"] for found in findings(root, "version_pin_removed")]
            assert pins == ["dataset_version", "origin._xact_id"]
        assert pair.sandbox.writes("globex") == []


def test_a_deletion_alone_makes_another_state(tmp_path: Path) -> None:
    """The newest transaction of the rows that are left is still that of the snapshot."""
    with timed_pair() as pair:
        dataset_id = take_snapshot(pair.source, "now")
        pin = newest(pair.source, dataset_id)
        pair.source.insert("dataset", dataset_id, [gone(1)])
        assert newest(pair.source, dataset_id) == pin
        done = run(pair.sandbox, tmp_path / "plain", "--verify")
        assert (done.code, snapshots(pair.dest)) == (0, {}), done.last_words


@SNAPSHOTS
def test_each_version_of_a_row_that_an_origin_names_is_there(tmp_path: Path) -> None:
    with timed_pair() as pair:
        done = run(pair.sandbox, tmp_path / "runs", VERSIONS, "--verify")
        assert (done.code, differences(pair, versions=True)) == (0, []), done.last_words
        assert findings(tmp_path / "runs", "version_pin_removed") == []
        told = origins(pair.dest)
        assert told == [(row_id, expected, expected) for row_id, expected, _ in told]
        assert sorted(told) == sorted(origins(pair.source))
        # A run that knows nothing of the one before finds the same rows, whatever was pinned.
        again = run(pair.sandbox, tmp_path / "fresh", "--verify")
        assert (again.code, report(tmp_path / "fresh")["problems"]) == (0, []), again.last_words
        assert origins(pair.dest) == told


@SNAPSHOTS
def test_a_version_of_a_row_is_there_although_another_row_of_its_transaction_did_not_change(
    tmp_path: Path,
) -> None:
    with timed_pair() as pair:
        dataset_id = dataset_of(pair.source)
        (experiment,) = pair.source.objects("experiment")
        pair.source.insert("dataset", dataset_id, [row(30, "named"), row(31, "stays")])
        (named,) = [e for e in pair.source.rows("dataset", dataset_id) if e["id"] == "row 30"]
        pair.source.insert("experiment", experiment["id"], [of(named, dataset_id)])
        pair.source.insert("dataset", dataset_id, [row(30, "changed")])
        done = run(pair.sandbox, tmp_path / "runs", VERSIONS, "--verify")
        assert (done.code, findings(tmp_path / "runs", "version_pin_removed")) == (0, [])
        told = origins(pair.dest)
        assert told == [(row_id, expected, expected) for row_id, expected, _ in told]
        assert sorted(told) == sorted(origins(pair.source))


@SNAPSHOTS
def test_verification_finds_a_pin_to_another_state(tmp_path: Path) -> None:
    with timed_pair() as pair:
        assert run(pair.sandbox, tmp_path / "runs", VERSIONS).code == 0
        (experiment,) = pair.dest.objects("experiment")
        there = snapshots(pair.dest)
        assert experiment["dataset_version"] == there["second"]
        for depth, wrong in (("--full", "third"), ("--counts", "first")):
            pair.dest.patch("experiment", experiment["id"], {"dataset_version": there[wrong]})
            done = run(pair.sandbox, tmp_path / "runs", depth, program="verify")
            compared = report(tmp_path / "runs")["verification"]["kinds"]["states of datasets"]
            assert (done.code, compared["outcomes"]) == (1, {"match": 3, "differs": 1})


@SNAPSHOTS
@pytest.mark.parametrize("depth", ["--full", "--sample"])
@pytest.mark.variants(1)
def test_verification_finds_an_origin_that_names_another_version_of_a_row(
    depth: str, tmp_path: Path
) -> None:
    with timed_pair() as pair:
        assert run(pair.sandbox, tmp_path / "runs", VERSIONS).code == 0
        (experiment,) = pair.dest.objects("experiment")
        rows = {entry["id"]: entry for entry in pair.dest.rows("experiment", experiment["id"])}
        pins = {
            entry["origin"]["_xact_id"]: entry
            for entry in rows.values()
            if entry["origin"]["id"] == "row 0"
        }
        first, last = (pins[xact] for xact in (min(pins), max(pins)))
        assert first["expected"] != last["expected"]
        for entry, other in ((first, last), (last, first)):
            kept = ("id", "created", "span_id", "root_span_id", "input", "expected")
            changed = {**{name: entry[name] for name in kept}, "origin": other["origin"]}
            pair.dest.insert("experiment", experiment["id"], [changed])
        options = [] if depth == "--sample" else [depth]
        done = run(pair.sandbox, tmp_path / "runs", *options, program="verify")
        found = report(tmp_path / "runs")["verification"]["differences"]
        assert (done.code, sorted((entry["row"], entry["fields"]) for entry in found)) == (
            1,
            sorted((entry["id"], ["origin._xact_id"]) for entry in (first, last)),
        )


@SNAPSHOTS
def test_a_sync_goes_to_each_state_that_was_named_since(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with timed_pair() as pair:
        assert run(pair.sandbox, root, VERSIONS).code == 0
        dataset_id = take_snapshot(pair.source, "copied")
        pair.source.insert("dataset", dataset_id, [row(1, "synced"), row(20, "synced")])
        take_snapshot(pair.source, "between")
        pair.source.insert("dataset", dataset_id, [row(1, "newest"), gone(20), gone(8)])
        take_snapshot(pair.source, "now")
        options = ("--since-last", "--propagate-deletes", "--max-deletes", "99", "--verify")
        done = run(pair.sandbox, root, VERSIONS, *options)
        assert (done.code, differences(pair, versions=True)) == (0, []), done.last_words
        assert set(snapshots(pair.dest)) == {*STATES, "copied", "between", "now"}
        # Without leave to delete rows, a state without them is not made.
        pair.source.insert("dataset", dataset_id, [gone(4), row(21, "more")])
        take_snapshot(pair.source, "fewer")
        pair.source.insert("dataset", dataset_id, [row(22, "more")])
        done = run(pair.sandbox, root, VERSIONS, "--since-last")
        assert done.code == 0, done.last_words
        (left,) = findings(root, "dataset_version_left")
        assert "--propagate-deletes" in left["detail"]
        assert "fewer" not in snapshots(pair.dest)


@SNAPSHOTS
@pytest.mark.parametrize("named_before", [True, False])
@pytest.mark.variants(1)
def test_a_sync_keeps_versions_that_were_named_and_replaced_since(
    named_before: bool, tmp_path: Path
) -> None:
    """Of a row that was new or changed; also in a dataset of which nothing was named before."""
    root, synced = tmp_path / "runs", (VERSIONS, "--since-last", "--verify", "--full")
    with timed_pair() as pair:
        source = pair.source
        if not named_before:
            for kind in ("dataset_snapshot", "experiment"):
                for obj in source.objects(kind):
                    source.delete(kind, obj["id"])
            project = source.objects("project")[0]["id"]
            source.create("experiment", {"project_id": project, "name": "not pinned"})
        assert run(pair.sandbox, root, VERSIONS).code == 0
        pair.sandbox.clock.set(pair.sandbox.clock.seconds() + 3600)
        (experiment,), dataset_id = source.objects("experiment"), dataset_of(source)
        for text in ("before", "after"):
            source.insert("dataset", dataset_id, [row(4, text), row(40, text)])
            rows = [e for e in source.rows("dataset", dataset_id) if e["expected"] == text]
            source.insert("experiment", experiment["id"], [of(e, dataset_id) for e in rows])
            source.insert("dataset", dataset_id, [row(4, f"{text} that"), row(40, text[::-1])])
            take_snapshot(source, text)
        source.insert("dataset", dataset_id, [row(4, "last")])
        done = run(pair.sandbox, root, *synced)
        assert (done.code, differences(pair, versions=True)) == (0, []), done.last_words
        assert {"before", "after"} <= set(snapshots(pair.dest))
        assert sorted(origins(pair.dest)) == sorted(origins(source))
        pair.sandbox.sent.clear()
        again = run(pair.sandbox, root, *synced)
        assert (again.code, pair.sandbox.sent) == (0, [])
        # What a sync does not copy is reported: a row that was deleted in the source.
        source.insert("dataset", dataset_id, [row(4, "named"), row(41, "gone")])
        (entry,) = [e for e in source.rows("dataset", dataset_id) if e["id"] == "row 4"]
        source.insert("experiment", experiment["id"], [of(entry, dataset_id)])
        source.insert("dataset", dataset_id, [row(4, "replaced"), gone(41)])
        done = run(pair.sandbox, root, *synced)
        (removed,) = findings(root, "version_pin_removed")
        assert (done.code, removed["count"]) == (0, 1)
        assert "row 41" not in {e["id"] for e in pair.dest.rows("dataset", dataset_of(pair.dest))}


def without_past(method: str, path: str, body: bytes) -> Optional[Answer]:
    """A server that knows no earlier states."""
    asks = path == "/btql" and b'"version"' in body
    return Answer(400, b"Extraneous key 'version' at path []", "text/plain") if asks else None


def without_transactions(method: str, path: str, body: bytes) -> Optional[Answer]:
    """A server whose answers to inserts name no transaction."""
    return Answer(404, b"Not found", "text/plain") if path == "/logs3" else None


@pytest.mark.parametrize(
    ("refuse", "why"),
    [
        (without_past, "the source does not show it: 400"),
        (without_transactions, "the destination does not name the transactions"),
    ],
)
def test_a_state_that_cannot_be_made_is_a_finding_and_the_rows_arrive(
    refuse: Any, why: str, tmp_path: Path
) -> None:
    with timed_pair() as pair:
        take_snapshot(pair.source, "now")
        pair.sandbox.refuse = refuse
        done = run(pair.sandbox, tmp_path / "runs", VERSIONS)
        assert done.code == 0, done.last_words
        (left,) = findings(tmp_path / "runs", "dataset_version_left")
        assert (left["detail"][: len(why)], left["severity"]) == (why, "loss")
        assert snapshots(pair.dest) == {}
        rows = [
            sorted((entry["id"], entry["expected"]) for entry in org.rows("dataset", dataset["id"]))
            for org in (pair.source, pair.dest)
            for dataset in org.objects("dataset")
        ]
        assert rows[0] == rows[1]


def test_a_version_of_a_row_that_the_source_does_not_show_is_a_finding_and_the_rows_arrive(
    tmp_path: Path,
) -> None:
    with timed_pair() as pair:
        for snapshot in pair.source.objects("dataset_snapshot"):
            pair.source.delete("dataset_snapshot", snapshot["id"])
        (pinned,) = pair.source.objects("experiment")
        rows = pair.source.rows("experiment", pinned["id"])
        pair.source.delete("experiment", pinned["id"])
        made = {"project_id": pinned["project_id"], "name": "not pinned"}
        experiment = pair.source.create("experiment", made)["id"]
        chosen = ("id", "input", "expected", "origin")
        events = [{name: row[name] for name in chosen} for row in rows]
        pair.source.insert("experiment", experiment, events)
        pair.sandbox.refuse = without_past
        done = run(pair.sandbox, tmp_path / "runs", VERSIONS, "--verify")
        assert done.code == 0, done.last_words
        (left,) = findings(tmp_path / "runs", "version_pin_removed")
        assert (left["path"], left["severity"]) == ("origin._xact_id", "loss")


def test_undo_deletes_all_states_and_leaves_a_dataset_in_which_somebody_made_a_snapshot(
    tmp_path: Path,
) -> None:
    root = tmp_path / "runs"
    with timed_pair() as pair:
        assert run(pair.sandbox, root, VERSIONS).code == 0
        foreign = {"name": "theirs", "description": "keep"}
        there = {"xact_id": newest(pair.dest, dataset_of(pair.dest)), **foreign}
        made = pair.dest.create("dataset_snapshot", {"dataset_id": dataset_of(pair.dest), **there})
        undone = undo(pair, root, "--yes")
        assert "holds something that this run did not make" in undone.out + undone.err
        assert list(snapshots(pair.dest)) == ["theirs"]
        assert dataset_of(pair.dest)
        pair.dest.delete("dataset_snapshot", made["id"])
        undo(pair, root, "--yes")
        assert (pair.dest.objects("dataset"), pair.dest.objects("project")) == ([], [])


def dataset_of(org: Any) -> str:
    return str(org.objects("dataset")[0]["id"])


# -- killed


@SNAPSHOTS
@pytest.mark.parametrize("kills", seeded_kills(17, 40, range(5, 75), short=2))
@pytest.mark.variants(1)
def test_a_killed_replay_goes_on_with_the_same_command(kills: List[Kill], tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with timed_pair(rows=60) as pair:
        proved = (VERSIONS, "--full", "--verify")
        for last in starts(pair, root, at_requests(kills), *proved, **SMALL):
            untrue = [claim for place in runs(root) for claim in untrue_claims(pair, place)]
            assert untrue == [], last.last_words
        assert (last.code, differences(pair, versions=True)) == (0, []), last.last_words
        assert (report(root)["verification"]["equal"], len(runs(root))) == (True, 1)
        pair.sandbox.clear_requests()
        again = run(pair.sandbox, tmp_path / "fresh", VERSIONS)
        assert (again.code, pair.sandbox.writes("globex")) == (0, [])


# -- read by the SDK


@SNAPSHOTS
@pytest.mark.skipif(not importlib.util.find_spec("braintrust"), reason="needs the official SDK")
def test_the_sdk_reads_each_state_alike_on_both_sides(tmp_path: Path) -> None:
    with timed_pair() as pair:
        serve_sdk(pair.sandbox)
        assert run(pair.sandbox, tmp_path / "runs", VERSIONS).code == 0
        seen = []
        for key, org in ((SOURCE_KEY, pair.source), (DEST_KEY, pair.dest)):
            versions = [*(snapshots(org)[name] for name in STATES), None]
            asked = [["Alpha", "cases", version] for version in versions]
            seen.append(read_by_sdk(pair, key, asked, tmp_path / "read.json"))
        assert seen[0] == seen[1]
        assert [len(rows) for rows in seen[0]] == [6, 7, 7, 7]


def read_by_sdk(pair: Pair, key: str, asked: List[Any], file: Path) -> Any:
    url = pair.sandbox.url
    environ = {
        **os.environ,
        "BRAINTRUST_API_KEY": key,
        "BRAINTRUST_APP_URL": url,
        "BRAINTRUST_API_URL": url,
    }
    program = REPOSITORY / "tests" / "support" / "sdk_versions.py"
    command = [sys.executable, str(program), json.dumps(asked), str(file)]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=TIME_LIMIT_S
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(file.read_text())


@pytest.mark.parametrize("after", [1, 3, 4, 6, 7])
@pytest.mark.variants(1)
def test_a_request_that_is_refused_once_leaves_each_later_start_equal(
    after: int, tmp_path: Path
) -> None:
    """Rows of one state, or its deletions: the states after it are made from the one before."""
    with timed_pair() as pair:
        fault = Fault("status", "globex", "POST", "logs3|insert$", after=after, status=400)
        pair.sandbox.faults.add(fault)
        first = run(pair.sandbox, tmp_path / "runs", VERSIONS, **SMALL)
        assert pair.sandbox.faults.hits(fault) == 1
        # The first goes on with the same run if that is not complete; the others are new runs.
        codes = [
            run(pair.sandbox, tmp_path / "runs", VERSIONS, "--verify", "--full", **SMALL).code
            for _ in range(4)
        ]
        assert codes == [0, 0, 0, 0], (first.code, first.out)


@pytest.mark.usefixtures("data_plane")
@pytest.mark.variants(1)
def test_syncs_write_a_row_and_what_is_made_from_it_once(tmp_path: Path) -> None:
    """The version that an origin names is known once its row was delivered."""
    with timed_pair() as pair:
        sent = []
        for number in range(5):
            if number == 2:
                (dataset,), (experiment,) = map(pair.source.objects, ("dataset", "experiment"))
                pair.source.insert("dataset", dataset["id"], [row(4, "edited")])
                rows = pair.source.rows("dataset", dataset["id"])
                (edited,) = [entry for entry in rows if entry["id"] == "row 4"]
                pair.source.insert("experiment", experiment["id"], [of(edited, dataset["id"])])
            pair.sandbox.sent.clear()
            pair.sandbox.clock.set(pair.sandbox.clock.seconds() + 3600)
            done = run(pair.sandbox, tmp_path, VERSIONS, "--since-last", "--verify", "--full")
            assert done.code == 0, done.out
            sent.append(len(pair.sandbox.sent))
        assert sent[1:] == [0, 2, 0, 0], sent
