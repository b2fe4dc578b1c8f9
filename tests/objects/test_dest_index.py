"""Which of the destination's objects a natural key finds."""

from __future__ import annotations

import threading
from typing import Any, List

import pytest

from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource_table import FUNCTIONS, PROMPTS
from bt_migrate.objects.dest_index import DestIndex

PROMPT: JsonObject = {"id": "p", "slug": "s", "function_data": {"type": "prompt"}}
SCORER: JsonObject = {"id": "f", "slug": "s", "function_data": {"type": "code"}}
NO_LISTS: Any = None


@pytest.mark.parametrize("listed", [[PROMPT, SCORER], [SCORER, PROMPT]])
def test_a_slug_that_a_prompt_has_as_well_finds_the_function(listed: List[JsonObject]) -> None:
    """The list of functions shows prompts too; which of both is older does not matter."""
    index = DestIndex(NO_LISTS, threading.RLock())
    index.provide(FUNCTIONS, "project", listed)
    index.provide(PROMPTS, "project", [PROMPT])
    assert list(index.by_key(FUNCTIONS, "project").values()) == [SCORER]
    assert list(index.by_key(PROMPTS, "project").values()) == [PROMPT]
    assert index.objects(FUNCTIONS, "project") == listed
