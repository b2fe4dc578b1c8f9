"""One sandbox in a process of its own, with one organization of a given shape; `harness.Server`
starts it.

The shape is the one argument, as JSON: {"latency": {...}, "limits": {...}, "projects": n, "logs":
n, "experiments": n, "datasets": n, "rows": n (of each experiment and dataset), "large": [bytes,
...] (rows among the logs), "spread_days": n, "mark": n, "sink": true}. Prints one JSON line once
all is there, and serves until stdin ends. With "mark" it prints "mark" once the organization holds
that many rows; a "sink" counts the rows that it is sent and keeps none. The line "rows" on stdin is
answered with the number of rows of all objects, the line "again" with how many were inserted over
themselves.
"""

from __future__ import annotations

import json
import math
import random
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from harness import INSERTS

from bt_migrate.sandbox.btql.expressions import timestamp_text
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.clock import xact_id
from bt_migrate.sandbox.http.server import Incoming, Sandbox, SandboxOrg

Json = Dict[str, Any]

# of a row as it is inserted: compact JSON, UTF-8; a reader gets about 450 bytes more
ROW_BYTES = 1024
ROWS_PER_TRANSACTION = 100
DAY_S = 86400
WORDS = (
    "the customer asked whether an order could be changed after it had left the warehouse "
    "and which fee applies"
).split()
KIND_OF_ROWS = {"logs": "project_logs", "experiments": "experiment", "datasets": "dataset"}


def spans(count: int, rng: random.Random, row_bytes: int = ROW_BYTES) -> Iterator[Json]:
    """Spans of LLM calls, of the same size each."""
    texts = [" ".join(rng.choice(WORDS) for _ in range(row_bytes // 3)) for _ in range(97)]
    filling = 0
    for number in range(count):
        row = _span(number, rng)
        if not filling:  # the rest is the same length in every row
            filling = row_bytes - len(
                json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode()
            )
        question, answer = texts[number % 97], texts[(number * 31 + 7) % 97]
        row["input"][1]["content"] += question[: filling // 2]
        row["output"]["content"] += answer[: filling - filling // 2]
        yield row


def _span(number: int, rng: random.Random) -> Json:
    row_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    begins = 1_700_000_000 + number % 1_000_000 + 0.125
    return {
        "id": row_id,
        "span_id": row_id,
        "root_span_id": row_id,
        "span_parents": [],
        "created": timestamp_text(int(begins * 1_000_000)),
        "input": [
            {"role": "system", "content": "Answer in one sentence – politely."},
            {"role": "user", "content": ""},
        ],
        "output": {"role": "assistant", "content": ""},
        "metadata": {
            "model": "gpt-4o-mini",
            "temperature": 0.25,
            "session": f"{rng.getrandbits(48):012x}",
            "route": "chat",
        },
        "metrics": {
            "start": begins,
            "end": begins + 1.5,
            "prompt_tokens": 123,
            "completion_tokens": 45,
            "tokens": 168,
        },
        "scores": {"Factuality": 0.75, "Politeness": 1},
        "tags": ["production"],
        "span_attributes": {"name": "Chat Completion", "type": "llm"},
    }


def cases(count: int, rng: random.Random) -> Iterator[Json]:
    """Rows of a dataset."""
    for row in spans(count, rng):
        yield {
            "id": row["id"],
            "created": row["created"],
            "input": row["input"],
            "expected": row["output"],
            "tags": row["tags"],
        }


def fill(org: SandboxOrg, shape: Json) -> Json:
    """Make what the shape says; returns the ids of the objects, by kind."""
    rng = random.Random(20260113)
    ids: Dict[str, List[str]] = {"logs": [], "experiments": [], "datasets": []}
    projects = [
        org.create("project", {"name": f"project {number}"})["id"]
        for number in range(shape.get("projects", 0))
    ]
    ids["logs"] = projects
    for kind, make in (("experiments", spans), ("datasets", cases)):
        for number in range(shape.get(kind, 0)):
            body = {"project_id": projects[number % len(projects)], "name": f"{kind} {number:04}"}
            ids[kind].append(org.create(KIND_OF_ROWS[kind], body)["id"])
            org.insert(KIND_OF_ROWS[kind], ids[kind][-1], list(make(shape["rows"], rng)))
    if shape.get("logs"):
        fill_logs(org, projects[0], shape, rng)
    return ids


def fill_logs(org: SandboxOrg, project: str, shape: Json, rng: random.Random) -> None:
    """Log rows; with "spread_days" as if they had come over that many days, with nights and
    weekends.
    """
    large = {number * 700 + 350: size for number, size in enumerate(shape.get("large", []))}
    moments = (
        times(shape["logs"] // ROWS_PER_TRANSACTION + 1, shape["spread_days"], rng)
        if shape.get("spread_days")
        else None
    )
    batch: List[Json] = []
    for number, row in enumerate(spans(shape["logs"], rng), 1):
        if number in large:
            row["output"] = {"content": "a long answer " * (large[number] // 14)}
        batch.append(row)
        if len(batch) == ROWS_PER_TRANSACTION or number == shape["logs"]:
            org.insert("project_logs", project, batch, at=next(moments) if moments else None)
            batch = []


def times(count: int, days: int, rng: random.Random) -> Iterator[int]:
    """Ascending seconds of the last days: three times as many by day as by night, half as many at
    weekends.
    """
    end = int(time.time()) - 3600
    found: List[float] = []
    while len(found) < count:
        day = rng.random() * days
        weight = (
            (1 + 0.5 * math.sin(day % 1 * 2 * math.pi)) / 1.5 * (0.5 if int(day) % 7 > 4 else 1)
        )
        if rng.random() < weight:
            found.append(end - days * DAY_S + day * DAY_S)
    return iter(sorted(int(second) for second in found))


class BenchSandbox(Sandbox):
    """A sandbox that can count the rows of inserts instead of keeping them."""

    def __init__(self) -> None:
        super().__init__()
        self.latency_includes_work = True
        self.intercept = self._sink_inserts
        self.mark = 0  # "mark" is printed once that many rows are there
        self.sink = False  # inserts of one object are read and counted, not kept
        self._sunk = 0
        self._counting = threading.Lock()

    def _sink_inserts(self, request: Incoming) -> Optional[Answer]:
        if not (self.sink and request.path.endswith(INSERTS)):
            return None
        body = json.loads(request.body)
        ids = [row["id"] for row in body["rows" if request.path == "/logs3" else "events"]]
        with self._counting:
            self._sunk += len(ids)
        answer: Json = {"row_ids": ids}
        if request.path == "/logs3":
            answer = {"ids": ids, "xact_id": xact_id(self.store.clock.next_moment())}
        return Answer(200, json.dumps(answer).encode(), changed=True)

    def watch(self, number: int, moment: str, method: str, path: str) -> None:
        if moment == "after" and self.mark and path.endswith(INSERTS) and self.rows() >= self.mark:
            self.mark = 0
            print("mark", flush=True)

    def rows(self) -> int:
        return self._sunk + sum(len(rows.rows) for rows in list(self.store.rows.values()))

    def again(self) -> int:
        """Rows that were inserted over themselves."""
        return sum(len(rows.past) for rows in list(self.store.rows.values()))


def main() -> None:
    shape = json.loads(sys.argv[1])
    with BenchSandbox() as sandbox:
        org = sandbox.add_org(shape.get("name", "bench"))
        ids = fill(org, shape)
        sandbox.latency = shape.get("latency", {})
        for name, value in shape.get("limits", {}).items():
            setattr(sandbox, name, value)
        sandbox.sink = bool(shape.get("sink"))
        if shape.get("mark"):
            sandbox.mark, sandbox.on_request = shape["mark"], sandbox.watch
        facts = {"url": sandbox.url, "key": org.api_key, "token": sandbox.control_token, "ids": ids}
        print(json.dumps(facts), flush=True)
        for line in sys.stdin:
            print({"again": sandbox.again, "rows": sandbox.rows}[line.strip()](), flush=True)


if __name__ == "__main__":
    main()
