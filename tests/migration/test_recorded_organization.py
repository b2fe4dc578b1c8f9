"""An organization of objects and rows recorded from the hosted service moves completely."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from bt_migrate.sandbox.data.behaviour import recorded
from tests.support.exchanges import Exchange, sessions
from tests.support.orgs import DEST_KEY, SOURCE_KEY, Pair, WatchedSandbox, report, run
from tests.support.replay import fill

# Both organizations of the recordings have a project of the same name; these are of the second.
OTHER_ORGANIZATION = ("ruby datasets", "ruby eval/dataset_hash", "ruby functions/list")
OWNER = {"email": "owner@acme.example"}


def exchanges() -> List[Exchange]:
    return [
        exchange
        for name, found in sessions().items()
        for exchange in found
        if not name.startswith(OTHER_ORGANIZATION)
    ]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with WatchedSandbox() as sandbox:
        sandbox.store.behaviour = recorded()
        sandbox.clock.set(1_750_000_000)
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[OWNER])
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=[OWNER])
        fill(sandbox, source, exchanges())
        sandbox.clock.set(1_770_000_000)
        yield Pair(sandbox, source, dest)


def found(root: Path) -> Dict[Tuple[str, str], int]:
    """(severity, kind) of findings -> number of places."""
    return dict(
        Counter((finding["severity"], finding["kind"]) for finding in report(root)["findings"])
    )


def edited(org: Any) -> List[str]:
    """Ids of datasets that hold rows that were written more than once."""
    return [
        dataset["id"]
        for dataset in org.objects("dataset")
        if any(len(row["audit_data"]) > 1 for row in org.rows("dataset", dataset["id"]))
    ]


def test_a_recorded_organization_moves_and_only_real_losses_are_named(
    pair: Pair, tmp_path: Path
) -> None:
    done = run(pair.sandbox, tmp_path / "runs", "--verify")
    assert done.code == 0, done.last_words
    kinds = ("project", "dataset", "experiment", "function")
    for kind in kinds:
        assert len(pair.dest.objects(kind)) == len(pair.source.objects(kind)) > 0
    several = [obj for obj in pair.source.objects("function") if obj["created"] > "2025-10-02"]
    assert found(tmp_path / "runs") == {
        ("action", "key_to_make"): 1,
        # the bytes are not in the source
        ("loss", "attachment_missing"): 1,
        ("loss", "earlier_versions"): len(several),
        # rows that were edited have a history
        ("loss", "row_field_not_carried"): len(edited(pair.source)),
    }


def test_fail_on_loss_names_only_what_is_lost(pair: Pair, tmp_path: Path) -> None:
    done = run(pair.sandbox, tmp_path / "runs", "--fail-on-loss")
    lost = {kind for severity, kind in found(tmp_path / "runs") if severity == "loss"}
    assert (done.code, lost) == (1, {"earlier_versions"})
    assert pair.sandbox.writes("globex") == []
