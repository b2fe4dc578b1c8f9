"""The comparison says what is true: what cannot move, how many rows, what it waits for, what still
names the source.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.verify.traces import id_in, is_transaction, kept_transactions
from tests.support.orgs import Pair, report, tiny_pair
from tests.verify.test_verify import moved, object_id, program, told, verified

Json = Dict[str, Any]
XACT = "1000192656880881099"
PRETTY = "b68bd20e7fd0cdb3"


@pytest.fixture
def tiny() -> Iterator[Pair]:
    with tiny_pair() as pair:
        yield pair


# What cannot move ---------------------------------------------------------------------------------


def test_what_cannot_be_moved_is_counted_and_named_and_is_no_difference(
    tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs")
    code, result = verified(tiny, tmp_path / "runs")
    functions = result["kinds"]["functions"]["outcomes"]
    named = [(entry["resource"], entry["name"]) for entry in result["cannot_move"]]
    assert (code, result["equal"], result["differences"]) == (0, True, [])
    assert functions["cannot_move"] == 1 and ("functions", "Bundled") in named
    assert result["text"].startswith("equal, except what cannot be moved: objects ")
    assert "cannot be moved" in program("verify", tiny, tmp_path / "runs", "--counts")[1]
    # Somebody pushed it by hand: then it is not missing.
    bundle = next(obj for obj in tiny.source.objects("function") if obj["name"] == "Bundled")
    alpha = object_id(tiny.dest, "project", "Alpha/α")
    by_hand = {"project_id": alpha, "name": bundle["name"], "slug": bundle["slug"]}
    tiny.dest.create("function", {**by_hand, "function_data": bundle["function_data"]})
    code, result = verified(tiny, tmp_path / "runs")
    assert (code, "cannot_move" in result["kinds"]["functions"]["outcomes"]) == (0, False)


# How many rows ------------------------------------------------------------------------------------


def test_rows_and_counts_have_separate_totals(tiny: Pair, tmp_path: Path) -> None:
    moved(tiny, tmp_path / "runs")
    counts = verified(tiny, tmp_path / "runs", "--counts")[1]
    full = verified(tiny, tmp_path / "runs", "--full")[1]
    sample = verified(tiny, tmp_path / "runs", "--sample", "20")[1]
    assert (counts["rows"], full["counts"]) == ({}, {})
    assert counts["counts"] == sample["counts"] == {"match": 7}
    assert full["rows"] == {"match": 480}
    streams = [
        len(tiny.source.rows(kind, obj["id"]))
        for kind, holder in (
            ("project_logs", "project"),
            ("experiment", "experiment"),
            ("dataset", "dataset"),
        )
        for obj in tiny.source.objects(holder)
    ]
    assert sample["rows"] == {"match": sum(min(20, rows) for rows in streams)}


@pytest.mark.parametrize("cap", [None, 437])
def test_a_sample_of_a_large_stream_has_as_many_rows_as_were_asked_for(
    cap: Optional[int], tiny: Pair, tmp_path: Path
) -> None:
    beta = object_id(tiny.source, "project", "beta")
    for start in range(0, 4000, 500):
        numbers = range(start, start + 500)
        tiny.source.insert("project_logs", beta, [{"id": f"m{n}", "input": n} for n in numbers])
    moved(tiny, tmp_path / "runs")
    tiny.sandbox.max_page_rows = cap
    arguments = ["--resources", "logs", "--projects", "beta", "--sample", "1500"]
    code, result = verified(tiny, tmp_path / "runs", *arguments)
    assert (code, result["rows"]["match"] >= 1500) == (0, True), result["text"]


# What is waited for -------------------------------------------------------------------------------


def writes_rows(path: str) -> bool:
    return path == "/logs3" or path.endswith("/insert")


def slow_waits(tiny: Pair, root: Path, *args: str) -> float:
    started = time.monotonic()
    verified(tiny, root, *args, MIGRATION_VERIFY_WAIT="60")
    return time.monotonic() - started


def delete_row(tiny: Pair, _: Json) -> None:
    beta = object_id(tiny.source, "project", "beta")
    tiny.source.insert("project_logs", beta, [{"id": "new", "input": 1}], at=int(time.time()) + 60)


def other_content(tiny: Pair, _: Json) -> None:
    beta = object_id(tiny.dest, "project", "beta")
    tiny.dest.insert("project_logs", beta, [{"id": "0001", "input": "theirs"}])


@pytest.mark.parametrize("depth", ["--counts", "--full", "--sample=50"])
@pytest.mark.parametrize("change", [delete_row, other_content])
def test_objects_known_to_be_missing_or_different_are_not_waited_for(
    change: Callable[[Pair, Json], None], depth: str, tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs")
    change(tiny, {})
    assert slow_waits(tiny, tmp_path / "runs", depth, "--resources", "logs") < 20


def test_rows_that_differ_and_rows_that_were_refused_are_not_waited_for(
    tiny: Pair, tmp_path: Path
) -> None:
    beta = tiny.dest.create("project", {"name": "beta"})["id"]
    tiny.dest.insert("project_logs", beta, [{"id": "0001", "input": "theirs"}])
    refusal = Answer(400, b"too odd")
    tiny.sandbox.refuse = lambda method, path, raw: (
        refusal if writes_rows(path) and b'"id":"0003"' in raw.replace(b" ", b"") else None
    )
    arguments = ["--resources", "logs", "--projects", "beta", "--full"]
    started = time.monotonic()
    code, _ = program(
        "migrate_all", tiny, tmp_path / "runs", *arguments, MIGRATION_VERIFY_WAIT="60"
    )
    result = report(tmp_path / "runs")["verification"]
    rows = {(entry["outcome"], entry.get("row")) for entry in result["differences"]}
    assert (code, rows) == (1, {("differs", "0001"), ("missing", "0003")})
    assert time.monotonic() - started < 30


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


def test_a_transaction_that_both_sides_hold_is_the_sources() -> None:
    source = {"loop": {"at": XACT}, "name": "a"}
    assert list(kept_transactions(source, source)) == ["loop.at"]
    assert list(kept_transactions(source, {"loop": {"at": str(int(XACT) + 1)}})) == []


@pytest.mark.parametrize("held", ["id", "transaction"])
def test_an_unknown_field_with_a_source_id_is_a_difference(
    held: str, tiny: Pair, tmp_path: Path
) -> None:
    """A field that is copied as it is: here a prompt's own kind of options."""
    prompt = next(obj for obj in tiny.source.objects("prompt") if obj["name"] == "Ask")
    score = object_id(tiny.source, "project_score", "Rating")
    value = score if held == "id" else XACT
    data = {**prompt["prompt_data"], "options": {"params": {"unheard_of": {"at": value}}}}
    tiny.source.patch("prompt", prompt["id"], {"prompt_data": data})
    moved(tiny, tmp_path / "runs")
    code, result = verified(tiny, tmp_path / "runs", "--counts")
    found = [(entry["name"], entry["fields"]) for entry in result["differences"]]
    assert (code, found) == (1, [("Ask", ["prompt_data.options.params.unheard_of.at"])])
    assert result["kinds"]["prompts"]["outcomes"] == {"differs": 1}


@pytest.mark.parametrize("depth", ["--full", "--sample=1000"])
def test_a_row_with_a_source_id_in_a_rewritten_field_differs(
    depth: str, tiny: Pair, tmp_path: Path
) -> None:
    ours = object_id(tiny.source, "project", "beta")
    fields = {"project_id": ours, "name": "Quality", "score_type": "slider"}
    score = tiny.source.create("project_score", fields)["id"]
    rows = [
        {"id": "in metadata", "metadata": {"by": score}},
        {"id": "in input", "input": {"by": score}},
    ]
    tiny.source.insert("project_logs", ours, rows)
    moved(tiny, tmp_path / "runs")
    code, result = verified(tiny, tmp_path / "runs", depth)
    found = [(entry.get("row"), entry["fields"]) for entry in result["differences"]]
    assert (code, found) == (1, [("in metadata", ["metadata.by"])]), result["text"]


def test_an_origin_with_the_transaction_of_the_source_is_not_equal(
    tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs")
    theirs = object_id(tiny.dest, "experiment", "middle")
    ours = object_id(tiny.source, "experiment", "middle")
    sources = {row["id"]: row for row in tiny.source.rows("experiment", ours)}
    row = next(row for row in tiny.dest.rows("experiment", theirs) if row.get("origin"))
    pin = sources[row["id"]]["origin"]["_xact_id"]
    for held, expected in ((pin, 1), (str(int(pin) + (1 << 20)), 0)):
        merge = {"id": row["id"], "_is_merge": True, "origin": {**row["origin"], "_xact_id": held}}
        tiny.dest.insert("experiment", theirs, [merge])
        arguments = ["--resources", "experiments", "--full"]
        code, result = verified(tiny, tmp_path / "runs", *arguments)
        assert (code, len(told(result))) == (expected, expected), json.dumps(result)
