"""The comparison says what is true: what cannot move, how many rows, what it waits for, what still
names the source.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Callable, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.verify.traces import id_in, is_transaction, kept_transactions
from tests.support.orgs import Pair, report, runs
from tests.support.verifying import Json, moved, object_id, program, told, verified

XACT = "1000192656880881099"
PRETTY = "b68bd20e7fd0cdb3"


# What cannot move ---------------------------------------------------------------------------------


def test_what_cannot_be_moved_is_counted_and_named_and_is_no_difference(
    pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    code, result = verified(pair, tmp_path / "runs")
    functions = result["kinds"]["functions"]["outcomes"]
    named = [(entry["resource"], entry["name"]) for entry in result["cannot_move"]]
    assert (code, result["equal"], result["differences"]) == (0, True, [])
    assert functions["cannot_move"] == 1 and ("functions", "Bundled") in named
    assert result["text"].startswith("equal, except what cannot be moved: objects ")
    assert "cannot be moved" in program("verify", pair, tmp_path / "runs", "--counts")[1]
    # Somebody pushed it by hand: then it is not missing.
    bundle = next(obj for obj in pair.source.objects("function") if obj["name"] == "Bundled")
    alpha = object_id(pair.dest, "project", "Alpha/α")
    by_hand = {"project_id": alpha, "name": bundle["name"], "slug": bundle["slug"]}
    pair.dest.create("function", {**by_hand, "function_data": bundle["function_data"]})
    code, result = verified(pair, tmp_path / "runs")
    assert (code, "cannot_move" in result["kinds"]["functions"]["outcomes"]) == (0, False)


# What only the destination has --------------------------------------------------------------------


def test_what_others_made_in_the_destination_is_reported_and_is_no_difference(
    pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    theirs = pair.dest.create("project", {"name": "theirs"})["id"]
    pair.dest.create("prompt", {"project_id": theirs, "name": "P", "slug": "p"})
    beta = object_id(pair.dest, "project", "beta")
    pair.dest.create("dataset", {"project_id": beta, "name": "theirs too"})
    code, result = verified(pair, tmp_path / "runs")
    named = [(entry["resource"], entry["name"]) for entry in result["only_in_dest"]]
    assert (code, result["differences"]) == (0, []), result["text"]
    assert named == [("projects", "theirs"), ("datasets", "theirs too")]
    assert result["text"].startswith("equal, except what ") and (
        "2 only in the destination" in result["text"]
    )
    screen = program("verify", pair, tmp_path / "runs", "--counts")[1]
    assert "Only in the destination:" in screen and "datasets 'theirs too' of beta" in screen


def test_what_a_run_created_and_the_source_no_longer_has_is_extra(
    pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    pair.source.delete("dataset", object_id(pair.source, "dataset", "questions"))
    for _ in range(2):  # the second run knows it from the first
        code, result = verified(pair, tmp_path / "runs", "--counts")
        found = {(entry[0], entry[1], entry[2]) for entry in told(result)}
        assert (code, ("extra", "datasets", "questions") in found) == (1, True), found
        assert ("datasets", "questions") not in {
            (entry["resource"], entry["name"]) for entry in result["only_in_dest"]
        }


# How many rows ------------------------------------------------------------------------------------


def test_rows_and_counts_have_separate_totals(pair: Pair, tmp_path: Path) -> None:
    moved(pair, tmp_path / "runs")
    counts = verified(pair, tmp_path / "runs", "--counts")[1]
    full = verified(pair, tmp_path / "runs", "--full")[1]
    sample = verified(pair, tmp_path / "runs", "--sample", "20")[1]
    assert (counts["rows"], full["counts"]) == ({}, {})
    assert counts["counts"] == sample["counts"] == {"match": 7}
    assert full["rows"] == {"match": 480}
    streams = [
        len(pair.source.rows(kind, obj["id"]))
        for kind, holder in (
            ("project_logs", "project"),
            ("experiment", "experiment"),
            ("dataset", "dataset"),
        )
        for obj in pair.source.objects(holder)
    ]
    assert sample["rows"] == {"match": sum(min(20, rows) for rows in streams)}


@pytest.mark.parametrize("cap", [None, 437])
@pytest.mark.variants(1)
def test_a_sample_of_a_large_stream_has_as_many_rows_as_were_asked_for(
    cap: Optional[int], pair: Pair, tmp_path: Path
) -> None:
    beta = object_id(pair.source, "project", "beta")
    for start in range(0, 4000, 500):
        numbers = range(start, start + 500)
        pair.source.insert("project_logs", beta, [{"id": f"m{n}", "input": n} for n in numbers])
    moved(pair, tmp_path / "runs")
    pair.sandbox.max_page_rows = cap
    arguments = ["--resources", "logs", "--projects", "beta", "--sample", "1500"]
    code, result = verified(pair, tmp_path / "runs", *arguments)
    assert (code, result["rows"]["match"] >= 1500) == (0, True), result["text"]


# What is waited for -------------------------------------------------------------------------------


def writes_rows(path: str) -> bool:
    return path == "/logs3" or path.endswith("/insert")


def slow_waits(pair: Pair, root: Path, *args: str) -> float:
    started = time.monotonic()
    verified(pair, root, *args, MIGRATION_VERIFY_WAIT="600")
    return time.monotonic() - started


def delete_row(pair: Pair, _: Json) -> None:
    beta = object_id(pair.source, "project", "beta")
    pair.source.insert("project_logs", beta, [{"id": "new", "input": 1}], at=int(time.time()) + 60)


def other_content(pair: Pair, _: Json) -> None:
    beta = object_id(pair.dest, "project", "beta")
    pair.dest.insert("project_logs", beta, [{"id": "0001", "input": "theirs"}])


def test_a_comparison_is_not_waited_for_by_the_next_one(pair: Pair, tmp_path: Path) -> None:
    """A start without a recorded end counts as killed, with rows that may not be shown yet."""
    moved(pair, tmp_path / "runs")
    verified(pair, tmp_path / "runs", "--counts")
    record = json.loads((runs(tmp_path / "runs")[-1] / "run.json").read_text(encoding="utf-8"))
    session = record["sessions"][-1]
    assert (session["command"], "ended" in session) == ("verify", True)
    assert session["wrote_until"] == 0.0


@pytest.mark.parametrize("depth", ["--counts", "--full", "--sample=50"])
@pytest.mark.parametrize("change", [delete_row, other_content])
@pytest.mark.variants(1)
def test_objects_known_to_be_missing_or_different_are_not_waited_for(
    change: Callable[[Pair, Json], None], depth: str, pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    change(pair, {})
    assert slow_waits(pair, tmp_path / "runs", depth, "--resources", "logs") < 300


def test_rows_that_differ_and_rows_that_were_refused_are_not_waited_for(
    pair: Pair, tmp_path: Path
) -> None:
    beta = pair.dest.create("project", {"name": "beta"})["id"]
    pair.dest.insert("project_logs", beta, [{"id": "0001", "input": "theirs"}])
    refusal = Answer(400, b"too odd")
    pair.sandbox.refuse = lambda method, path, raw: (
        refusal if writes_rows(path) and b'"id":"0003"' in raw.replace(b" ", b"") else None
    )
    arguments = ["--resources", "logs", "--projects", "beta", "--full"]
    started = time.monotonic()
    code, _ = program(
        "migrate_all", pair, tmp_path / "runs", *arguments, MIGRATION_VERIFY_WAIT="600"
    )
    result = report(tmp_path / "runs")["verification"]
    rows = {(entry["outcome"], entry.get("row")) for entry in result["differences"]}
    assert (code, rows) == (1, {("differs", "0001"), ("missing", "0003")})
    assert time.monotonic() - started < 300


# What still names the source ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (XACT, True),
        (PRETTY, False),
        ("1000", False),
        ("9999999999999999999", False),
        ("0123456789abcdef", False),
    ],
)
def test_a_transaction_is_known_by_its_top_bits(text: str, expected: bool) -> None:
    assert is_transaction(text) is expected


def test_the_short_form_of_a_transaction_is_one_too() -> None:
    xact_ids = pytest.importorskip("braintrust.xact_ids")
    assert is_transaction(xact_ids.prettify_xact(XACT))


def test_only_texts_that_are_an_id_as_a_whole_are_ids() -> None:
    found = "0b6b4b0e-5a0c-4c0a-9f0b-3f1e2d3c4b5a"
    assert [id_in(text) for text in (found, f"experiment_id:{found}", f"see {found}", "")] == [
        found,
        found,
        "",
        "",
    ]


def test_a_transaction_that_both_sides_hold_in_the_same_place_is_reported() -> None:
    source = {"loop": {"at": XACT}, "name": "a"}
    assert list(kept_transactions(source, source)) == [("loop.at", XACT)]
    assert list(kept_transactions(source, {"loop": {"at": str(int(XACT) + 1)}})) == []


@pytest.mark.parametrize("held", ["id", "transaction"])
@pytest.mark.variants(1)
def test_an_unknown_field_with_a_source_id_is_a_difference(
    held: str, pair: Pair, tmp_path: Path
) -> None:
    """A field that is copied as it is: here a prompt's own kind of options."""
    prompt = next(obj for obj in pair.source.objects("prompt") if obj["name"] == "Ask")
    score = object_id(pair.source, "project_score", "Rating")
    value = score if held == "id" else XACT
    data = {**prompt["prompt_data"], "options": {"params": {"unheard_of": {"at": value}}}}
    pair.source.patch("prompt", prompt["id"], {"prompt_data": data})
    moved(pair, tmp_path / "runs")
    code, result = verified(pair, tmp_path / "runs", "--counts")
    found = [(entry["name"], entry["fields"]) for entry in result["differences"]]
    assert (code, found) == (1, [("Ask", ["prompt_data.options.params.unheard_of.at"])])
    assert result["kinds"]["prompts"]["outcomes"] == {"differs": 1}


@pytest.mark.parametrize("depth", ["--full", "--sample=1000"])
@pytest.mark.variants(1)
def test_a_row_with_a_source_id_in_a_rewritten_field_differs(
    depth: str, pair: Pair, tmp_path: Path
) -> None:
    ours = object_id(pair.source, "project", "beta")
    fields = {"project_id": ours, "name": "Quality", "score_type": "slider"}
    score = pair.source.create("project_score", fields)["id"]
    rows = [
        {"id": "in metadata", "metadata": {"by": score}},
        {"id": "in input", "input": {"by": score}},
    ]
    pair.source.insert("project_logs", ours, rows)
    moved(pair, tmp_path / "runs")
    code, result = verified(pair, tmp_path / "runs", depth)
    found = [(entry.get("row"), entry["fields"]) for entry in result["differences"]]
    assert (code, found) == (1, [("in metadata", ["metadata.by"])]), result["text"]


def test_an_origin_with_the_transaction_of_the_source_is_not_equal(
    pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    theirs = object_id(pair.dest, "experiment", "middle")
    ours = object_id(pair.source, "experiment", "middle")
    sources = {row["id"]: row for row in pair.source.rows("experiment", ours)}
    row = next(row for row in pair.dest.rows("experiment", theirs) if row.get("origin"))
    pin = sources[row["id"]]["origin"]["_xact_id"]
    for held, expected in ((pin, 1), (str(int(pin) + (1 << 20)), 0)):
        merge = {"id": row["id"], "_is_merge": True, "origin": {**row["origin"], "_xact_id": held}}
        pair.dest.insert("experiment", theirs, [merge])
        arguments = ["--resources", "experiments", "--full"]
        code, result = verified(pair, tmp_path / "runs", *arguments)
        assert (code, len(told(result))) == (expected, expected), json.dumps(result)
