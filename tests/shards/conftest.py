"""The tiny organization, with and without a large log."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.support.orgs import Pair, tiny_pair
from tests.support.sharding import fill_big


@pytest.fixture
def small() -> Iterator[Pair]:
    with tiny_pair() as made:
        yield made


@pytest.fixture
def pair(small: Pair) -> Pair:
    fill_big(small.source, small.sandbox)
    return small
