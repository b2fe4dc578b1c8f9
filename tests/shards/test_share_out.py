"""Rows are divided among shards evenly, and large objects are cut near their targets."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from typing import Callable, Dict, List

import pytest

from bt_migrate.model.run_identity import ShardUnit
from bt_migrate.shards.share_out import Keys, cut_at, shared_out


def unit(rows: int, name: str = "", kind: str = "datasets", project: str = "p") -> ShardUnit:
    return ShardUnit(kind, project, name or f"{kind}-{rows}", name, rows, new=True)


SIZES: Dict[str, List[int]] = {
    "one log": [1_000_000],
    "a log and small ones": [1_000_000, *range(100, 4000, 37)],
    "four that do not fit": [80_000] * 5,
    "hundreds of small ones": [200 + number % 7 * 90 for number in range(800)],
    "all sizes": [int(1.3**power) for power in range(12, 52)],
    "nothing much": [3, 1, 0, 0],
}


@pytest.mark.parametrize("shards", [1, 3, 4, 16])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_each_row_is_in_one_shard_and_shards_are_even(sizes: List[int], shards: int) -> None:
    units = [unit(rows, str(number)) for number, rows in enumerate(sizes)]
    pieces = shared_out(units, shards, 1000)
    assert len(pieces) == shards
    for item in units:
        mine = sorted(
            (piece.begin, piece.end) for some in pieces for piece in some if piece.unit is item
        )
        assert (mine[0][0], mine[-1][1], [end for _, end in mine[:-1]]) == (
            0,
            item.rows,
            [begin for begin, _ in mine[1:]],
        )
        assert len(
            {number for number, some in enumerate(pieces) for piece in some if piece.unit is item}
        ) == len(mine)
    rows = [sum(piece.end - piece.begin for piece in some) for some in pieces]
    assert sum(rows) == sum(sizes)
    assert max(rows) <= max(
        sum(sizes) / shards * 1.12, 2 * 1000 + max(size for size in [0, *sizes] if size <= 2000)
    )


def test_objects_of_a_project_that_are_read_together_stay_together() -> None:
    units = [
        unit(1, f"{project}-{number}", project=f"p{project}")
        for project in range(16)
        for number in range(50)
    ]
    pieces = shared_out(units, 4, 1000)
    places = [Counter(piece.unit.project for piece in some) for some in pieces]
    assert (
        sum(sum(-(-count // 25) for count in some.values()) for some in places),
        [sum(some.values()) for some in places],
    ) == (48, [200] * 4)


def heaps(rng: random.Random) -> List[int]:
    """Pagination keys: one each second, in bulk, after months of silence, and equal ones."""
    keys: List[int] = []
    second = 1_700_000_000
    for _ in range(60):
        second += rng.choice((1, 1, 60, 86400 * 40))
        begin = (second << 32) + (rng.randrange(9) << 16)
        keys += range(begin, begin + rng.choice((1, 5, 1000, 4000)))
    return sorted(keys + [keys[len(keys) // 2]] * 2000)


@pytest.mark.parametrize("seed", range(8))
def test_a_cut_is_near_its_target_however_rows_are_clustered(seed: int) -> None:
    keys, asked = heaps(random.Random(seed)), [0]

    def told(value: Callable[[int], int]) -> Callable[[int], int]:
        def tell(key: int) -> int:
            asked[0] += 1
            return value(key)

        return tell

    rows_upto = told(lambda key: bisect_right(keys, key))
    ask = Keys(
        rows_upto,
        told(lambda key: keys[bisect_right(keys, key)]),
        told(lambda key: keys[bisect_right(keys, key) - 1]),
    )
    points = [(keys[0] - 1, 0), (keys[-1], len(keys))]
    near = len(keys) / 8 / 25
    cuts = [cut_at(len(keys) * part // 8, near, points, ask) for part in range(1, 8)]
    assert cuts == sorted(cuts)
    for part, (key, rows) in enumerate(cuts, 1):
        tie = bisect_right(keys, key + 1) - bisect_right(
            keys, key - 1
        )  # rows of one key cannot be cut
        assert (rows, abs(rows - len(keys) * part // 8) <= max(near, tie)) == (
            bisect_right(keys, key),
            True,
        )
    assert asked[0] < 7 * 17
