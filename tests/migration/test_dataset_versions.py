"""Datasets in time: snapshots, and pins of experiments, name the same states on both sides."""

from __future__ import annotations

from pathlib import Path

from tests.support.compare_orgs import differences
from tests.support.orgs import example_pair, run


def test_the_example_moves_with_all_states_of_its_datasets(tmp_path: Path) -> None:
    with example_pair() as pair:
        done = run(pair.sandbox, tmp_path / "runs", "--dataset-versions", "--verify")
        assert (done.code, differences(pair, versions=True)) == (0, []), done.last_words
