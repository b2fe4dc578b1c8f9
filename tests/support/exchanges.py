"""The recorded exchanges, and which value of the sandbox belongs to which recorded value.

Ids, transactions, keys and cursors of the two differ. A `Pairing` learns pairs, refuses a second
partner, and requires the same order of transactions and of keys.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping

from bt_migrate.sandbox.data.clock import micros

Json = Dict[str, Any]

FILE = Path(__file__).resolve().parent.parent / "recorded" / "exchanges.jsonl"
KEY = "sk-replay"

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TRANSACTION = re.compile(r"1000\d{15}")
ROW_KEY = re.compile(r"p\d{20}")
NO_ID = "00000000-0000-0000-0000-000000000000"
# How far a time of the sandbox may be from the recorded one; a session takes some seconds.
MAX_SECONDS_APART = 10

# Names of projects that the recordings mention by id only, or by name only.
PROJECT_NAMES = {
    "c532bc50-7094-4bbb-8704-42344c9728b9": "ruby-sdk-test",
    "ac86d18e-af78-4caf-918d-b89ad108ec67": "ruby-sdk-test",
    "842c2063-b9c7-4c40-9fb9-fa95f810c57f": "go-sdk-tests",
    "f1e858a4-58e3-408f-983f-016760d7fa25": "java-unit-test",
    "be859ba0-1274-4df9-8261-68b52806558c": "python datasets",
    "0e748405-dc34-448d-8fba-effd90756d75": "simple-math-eval",
}
# A query that was not recorded, from the ids that the session mentions before.
LOST_QUERIES = {
    "/experiment-comparison2": "?experiment_id=735629b8-83ca-49d8-82ec-2182edb4b1b7"
    "&base_experiment_id=699db184-3cf1-4aa0-b008-4dc7bdbd0fef",
}
# The queries of its lists were not recorded: only the objects that are shown are compared.
QUERY_UNKNOWN = "java"
HEADERS = ("x-bt-found-existing", "x-bt-cursor", "retry-after")


@dataclass(frozen=True)
class Exchange:
    """One recorded request and its answer."""

    session: str
    date: str
    method: str
    path: str
    request: Any
    status: int
    headers: Mapping[str, str]
    response: Any
    cut: bool = False  # the last items of lists are left out

    @property
    def seconds(self) -> float:
        return (micros(self.date) or 0) / 1e6

    @property
    def route(self) -> str:
        return "{} {}".format(self.method, UUID.sub("{id}", self.path.split("?")[0]))

    @property
    def is_jsonl(self) -> bool:
        return isinstance(self.request, dict) and self.request.get("fmt") == "jsonl"

    def rows(self) -> List[Json]:
        """The rows of the answer of a query or of /fetch."""
        if self.is_jsonl:
            return jsonl(self.response)
        if not isinstance(self.response, dict):
            return []
        return list(self.response.get("data") or self.response.get("events") or [])


def jsonl(value: Any) -> List[Json]:
    """The rows of a text of lines, or of its only line as a value."""
    if isinstance(value, dict):
        return [value]
    return [json.loads(line) for line in value.splitlines()]


def sessions() -> Dict[str, List[Exchange]]:
    """Returns the exchanges of each session, in order."""
    found: Dict[str, List[Exchange]] = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        exchange = Exchange(**json.loads(line))
        found.setdefault(exchange.session, []).append(exchange)
    return found


class Pairing:
    """Which value of the sandbox stands where the recording has another one."""

    def __init__(self) -> None:
        self._ours: Dict[str, str] = {}
        self._theirs: Dict[str, str] = {}

    def learn(self, recorded: str, ours: str) -> bool:
        """Remember a pair; False where one of the two has another partner."""
        known = self._ours.setdefault(recorded, ours)
        back = self._theirs.setdefault(ours, recorded)
        return (known, back) == (ours, recorded)

    def knows(self, recorded: str) -> bool:
        return recorded in self._ours

    def translated(self, text: str) -> str:
        """A recorded text with our values in place of the recorded ones."""
        for recorded, ours in self._ours.items():
            text = text.replace(recorded, ours)
        return text

    def misordered(self) -> List[str]:
        """Transactions and keys whose order is not that of the recorded ones."""
        problems = []
        for pattern in (TRANSACTION, ROW_KEY):
            pairs = sorted((a, b) for a, b in self._ours.items() if pattern.fullmatch(a))
            ours = [b for _, b in pairs]
            if ours != sorted(ours):
                problems.append(f"{pattern.pattern} are in another order")
        return problems
