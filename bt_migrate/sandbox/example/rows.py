"""The rows of the example: trees of spans, evaluations, rows of datasets, awkward rows.

Pure: everything comes from the given `random.Random` and from the tables in values.py. The awkward
rows hold marks that fill.py resolves; the other rows are given real ids.
"""

from __future__ import annotations

import datetime
import random
import uuid
from typing import Any, Dict, Iterator, List, Optional, Tuple

import bt_migrate.sandbox.example.values as values

Row = Dict[str, Any]
ExampleObjects = Dict[str, Row]  # label -> object, see `example.py`

DAY_S = 86400
FIRST_DAY = datetime.datetime(2025, 9, 29, tzinfo=datetime.timezone.utc)
LOGGED_S = 14 * DAY_S  # the logs are of two weeks, so that a date window can cut them


def new_id(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def python_time(seconds: float) -> str:
    """As the Python SDK writes it: microseconds unless they are 0, and an offset."""
    return (FIRST_DAY + datetime.timedelta(seconds=seconds)).isoformat()


def javascript_time(seconds: float) -> str:
    """As the JavaScript SDK writes it: milliseconds and Z."""
    moment = FIRST_DAY + datetime.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def span(rng: random.Random, parent: Optional[Row], begins: float, name: str, kind: str) -> Row:
    """A span under `parent` (None: a root) that begins this many seconds after FIRST_DAY."""
    span_id, epoch = new_id(rng), FIRST_DAY.timestamp() + begins
    return {
        "id": new_id(rng),
        "span_id": span_id,
        "root_span_id": parent["root_span_id"] if parent else span_id,
        "span_parents": [parent["span_id"]] if parent else [],
        "created": javascript_time(begins) if parent else python_time(begins),
        "span_attributes": {"name": name, "type": kind},
        "metrics": {"start": epoch, "end": epoch + rng.uniform(0.05, 4)},
    }


def model_span(rng: random.Random, parent: Row, begins: float, name: str, **fields: Any) -> Row:
    """A call of a language model, with its tokens."""
    row = span(rng, parent, begins, name, "llm")
    asked, answered = rng.randint(80, 2400), rng.randint(5, 600)
    counts = {"prompt_tokens": asked, "completion_tokens": answered, "tokens": asked + answered}
    return dict(
        row, metrics=dict(row["metrics"], time_to_first_token=rng.random(), **counts), **fields
    )


def score_span(
    rng: random.Random, parent: Row, begins: float, name: str, score: Optional[float]
) -> Row:
    row = span(rng, parent, begins, name, "score")
    attributes = dict(row["span_attributes"], purpose="scorer")
    output = {"score": score, "rationale": None}
    return dict(
        row, span_attributes=attributes, input=parent["input"], output=output, scores={name: score}
    )


# -- logs


def traces(rng: random.Random, by_label: ExampleObjects, project: str, count: int) -> List[Row]:
    """Returns `count` rows in no order of time; some share a second, some children come first."""
    rows: List[Row] = []
    while len(rows) < count:
        minute, moment = rng.randrange(LOGGED_S // 60) * 60.0, rng.uniform(0, LOGGED_S)
        tree = trace(rng, by_label, project, minute if rng.random() < 0.2 else moment)[
            : count - len(rows)
        ]
        rows += tree[::-1] if rng.random() < 0.3 else tree
    return rows


def trace(rng: random.Random, by_label: ExampleObjects, project: str, begins: float) -> List[Row]:
    """One conversation: a root, a model call, an answer, and often a tool and a score."""
    intent, question, tool, answer = talk(rng, project)
    root = conversation(rng, begins, intent, question, answer)
    if rng.random() < 0.05:
        root = with_attachments(root, by_label)
    messages = root["input"]["messages"]
    said = [
        {"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": intent}}
    ]
    cheap = {"model": "gpt-4o-mini", "temperature": 0.0}
    rows = [
        root,
        model_span(
            rng, root, begins, "classify intent", input=messages, output=said, metadata=cheap
        ),
    ]
    if rng.random() < 0.7:
        rows += tool_spans(rng, root, begins + 0.8, tool)
    metadata = {
        "model": rng.choice(values.MODELS),
        "prompt": logged_prompt(by_label, project, question),
    }
    answered = {
        "input": messages,
        "output": root["output"],
        "error": root["error"],
        "metadata": metadata,
    }
    rows.append(model_span(rng, root, begins + 1.5, "Chat Completion", **answered))
    if rng.random() < 0.4:
        rows.append(
            score_span(rng, root, begins + 2.5, "Helpfulness", rng.choice([0, 0.5, 1, None]))
        )
    return rows


def talk(rng: random.Random, project: str) -> Tuple[str, str, str, str]:
    """(intent, question, tool, answer)."""
    if project == "planner":
        wish, plan = rng.choice(values.TRIPS)
        return "trip", wish, "weather", plan
    intent, question, tool, answer = rng.choice(values.TALKS)
    reference = "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=6))
    return intent, question.format(ref=reference), tool, answer.format(ref=reference)


def conversation(rng: random.Random, begins: float, intent: str, question: str, answer: str) -> Row:
    """The root span of a trace; one in 25 has failed."""
    error = rng.choice(values.ERRORS) if rng.random() < 0.04 else None
    root = span(rng, None, begins, "conversation", "task")
    root.update(
        input={"messages": [{"role": "user", "content": question}]},
        output=None if error else answer,
        error=error,
        tags=rng.sample(values.TAGS, rng.randint(0, 2)),
        scores=rng.choice([{}, {"Rating": round(rng.random(), 2)}, {"Rating": 1, "Tone": None}]),
        metadata={
            "tier": rng.choice(values.TIERS),
            "ticket": rng.randint(10000, 99999),
            "intent": intent,
        },
        context={
            "caller_functionname": "answer",
            "caller_filename": "/srv/chat.py",
            "caller_lineno": 42,
        },
    )
    if rng.random() < 0.3:
        mood = rng.choice(["calm", "angry", None])
        root["facets"] = {"Task": "wants help with " + intent, "Sentiment": mood}
    return root


def with_attachments(root: Row, by_label: ExampleObjects) -> Row:
    """The same few files are used by many rows."""
    metadata = dict(root["metadata"], screen=by_label["file:logo"]["reference"])
    shown = {"role": "user", "content": [by_label["file:notes"]["reference"]]}
    return dict(root, metadata=metadata, input={"messages": root["input"]["messages"] + [shown]})


def logged_prompt(by_label: ExampleObjects, project: str, question: str) -> Row:
    """What the SDK puts into the metadata of a span that used a prompt."""
    prompt = by_label[values.LOGGED_PROMPTS.get(project, project + "/answer")]
    logged = {"id": prompt["id"], "project_id": prompt["project_id"], "version": prompt["_xact_id"]}
    return dict(logged, variables={"question": question})


def tool_spans(rng: random.Random, root: Row, begins: float, tool: str) -> List[Row]:
    """A call of a tool and, a level deeper, the search that it makes at the same moment."""
    query = root["input"]["messages"][0]["content"]
    result = {"found": rng.randint(0, 5), "rank": [rng.random() for _ in range(3)]}
    called = dict(span(rng, root, begins, tool, "tool"), input={"query": query}, output=result)
    search = span(rng, called, begins, "vector search", "function")
    return [called, dict(search, input=[0.25, -0.0, 1.0], output=[])]


def edits(rng: random.Random, rows: List[Row]) -> Iterator[List[Row]]:
    """Later inserts into the logs of `rows`: merged ratings, replaced rows, deleted rows."""
    roots = [row for row in rows if not row["span_parents"] and row["id"] not in values.AWKWARD_IDS]
    rating = {"_is_merge": True, "scores": {"Rating": 0.75}, "metadata": {"rated_by": "customer"}}
    yield [dict(rating, id=row["id"]) for row in rng.sample(roots, 20)]
    yield [dict(row, tags=["v3"], output="(rewritten by a person)") for row in rng.sample(roots, 5)]
    mistakes = [dict(row, id=new_id(rng), span_id=new_id(rng)) for row in rows[:3]]
    yield mistakes
    yield [{"id": row["id"], "_object_delete": True} for row in mistakes]


# -- datasets and experiments


def tickets(rng: random.Random, count: int) -> List[Row]:
    """Dataset rows of support questions."""
    return [ticket(rng, number) for number in range(count)]


def ticket(rng: random.Random, number: int) -> Row:
    intent, question, _, answer = talk(rng, "support")
    return {
        "id": new_id(rng),
        "input": {"question": question, "locale": "en"},
        "expected": {"intent": intent, "answer": answer},
        "metadata": {"tier": rng.choice(values.TIERS), "number": number, "weight": rng.random()},
        "tags": ["golden"] if number % 3 == 0 else [],
        "created": javascript_time(rng.uniform(0, 3600)),
    }


def trips(rng: random.Random, count: int) -> List[Row]:
    """Dataset rows of the planner, with ids made by people and all created at one moment."""
    chosen = [rng.choice(values.TRIPS) for _ in range(count)]
    return [
        {
            "id": f"旅/{number:03}",
            "input": wish,
            "expected": plan,
            "created": javascript_time(7200),
        }
        for number, (wish, plan) in enumerate(chosen)
    ]


def evaluation(
    rng: random.Random, experiment: Row, cases: List[Row], by_label: ExampleObjects
) -> List[Row]:
    """One trace for each dataset row: eval, a task with a model call in it, and a score."""
    rows: List[Row] = []
    for number, case in enumerate(cases):
        begins = 3 * DAY_S + number * 7.5
        root = evaluated(rng, begins, number, case)
        root["origin"] = origin("dataset", experiment["dataset_id"], case)
        if number % 10 == 0:
            root["metadata"]["screen"] = by_label["file:logo"]["reference"]
        output = {"input": case["input"], "output": root["output"]}
        task = dict(span(rng, root, begins + 0.1, "task", "task"), **output)
        model = model_span(
            rng, task, begins + 0.2, "Chat Completion", metadata={"model": "gpt-4o"}, **output
        )
        rows += [
            root,
            task,
            model,
            score_span(rng, root, begins + 3, "Tone", root["scores"]["Tone"]),
        ]
    return rows


def evaluated(rng: random.Random, begins: float, number: int, case: Row) -> Row:
    """The root of the evaluation of a dataset row; some have failed."""
    error = rng.choice(values.ERRORS) if number % 9 == 4 else None
    root = span(rng, None, begins, "eval", "eval")
    root.update(
        input=case["input"],
        output=None if error else f"answer {number}",
        error=error,
        expected=case.get("expected"),
        scores={"Tone": rng.choice([0, 0.25, 1, 1.0, None]), "Exact match": rng.random()},
        tags=case.get("tags") or [],
        metadata={
            "tier": rng.choice(values.TIERS),
            "row": case["id"],
            "model": rng.choice(values.MODELS),
        },
    )
    return root


def origin(kind: str, object_id: str, row: Row) -> Row:
    """What says that something was made from `row`, as it was in that transaction."""
    version = {"id": row["id"], "_xact_id": row["_xact_id"], "created": row["created"]}
    return dict(version, object_type=kind, object_id=object_id)


def picked(sources: List[Row], kind: str, object_id: str) -> List[Row]:
    """Dataset rows made from the first roots of `sources`."""
    roots = [
        row for row in sources if not row["span_parents"] and row["id"] not in values.AWKWARD_IDS
    ]
    return [
        {"id": "picked/" + row["id"], "input": row["input"], "origin": origin(kind, object_id, row)}
        for row in roots[:12]
    ]


# Rows of a dataset that name what is moved after the datasets.
MADE_FROM: List[Row] = [
    {"id": "stays", "input": 1, "metadata": {"made from": ["«support/reworded»"]}},
    {"id": "made from experiments", "input": 2,
     "metadata": {"made from": ["«support/baseline»", "«support/tools»"]}},
    {"id": "made with a prompt", "input": 3, "metadata": {"prompt": {
        "id": "«support/triage»", "project_id": "«support»", "version": "«support/triage._xact_id»",
        "variables": {"n": 1}}}},
]  # fmt: skip


# -- awkward rows


def awkward_rows(kind: str) -> List[Row]:
    """One row for each awkward value, all created at one moment; marks are not resolved."""
    rows = [awkward_row(row_id, value) for row_id, value in values.AWKWARD]
    return rows if kind == "dataset" else [dict(row, **awkward_span(row)) for row in rows]


def awkward_row(row_id: str, value: Any) -> Row:
    metadata = dict(values.AWKWARD_METADATA.get(row_id, {}), awkward=True)
    created = javascript_time(5 * DAY_S)
    return {
        "id": row_id,
        "created": created,
        "input": value,
        "expected": None,
        "metadata": metadata,
    }


def awkward_span(row: Row) -> Row:
    """The fields that rows of logs and experiments have and rows of datasets lack."""
    span_id = "span of " + row["id"][:40]
    return {
        "span_id": span_id,
        "root_span_id": span_id,
        "span_parents": [],
        "span_attributes": {"name": row["id"][:40], "type": "task", "exec_counter": 2**53 + 1},
        "output": {"echo": row["input"]} if row["id"] != "text/long" else None,
        "error": None,
        "scores": {"Rating": None, "Tone": 1.0, "naïve.score": 0},
        "tags": [],
        "metrics": {"start": 1e9, "cost": 1e-7},
    }
