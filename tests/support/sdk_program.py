"""Uses the official `braintrust` SDK as a person would, and prints what it reports as JSON.

It runs in its own process: the SDK keeps its state in globals and reads the environment.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Dict

import braintrust


def log_nested_spans() -> Dict[str, Any]:
    logger = braintrust.init_logger(project="Alpha")
    with logger.start_span(name="root", input={"question": "é\U0001f600"}, tags=["t"]) as root:
        with root.start_span(name="model", type="llm") as model:
            model.log(output="o", metrics={"tokens": 3}, metadata={"model": "m"})
            with model.start_span(name="leaf") as leaf:
                leaf.log(error="boom")
        root.log(output=[1, None, 2.5], scores={"fast": 0.5})
    logger.flush()
    # A second flush: the server has to merge.
    logger.log_feedback(
        id=root.id, scores={"human": 1}, comment="well done", metadata={"user_id": "u1"}
    )
    logger.flush()
    return {"root": root.id, "model": model.id, "leaf": leaf.id}


def attach() -> Dict[str, Any]:
    logger = braintrust.init_logger(project="Alpha")
    attachment = braintrust.Attachment(
        data=b"hello" * 1000, filename="h.txt", content_type="text/plain"
    )
    with logger.start_span(name="with attachment") as span:
        span.log(input={"file": attachment})
    logger.flush()
    reference = attachment.reference
    return {
        "span": span.id,
        "read back": braintrust.ReadonlyAttachment(reference).data.decode(),
        "key": reference["key"],
    }


def build_dataset() -> Dict[str, Any]:
    dataset = braintrust.init_dataset(
        project="Alpha", name="Questions", description="d", metadata={"m": 1}
    )
    for number in range(5):
        dataset.insert(
            id="row%d" % number,
            input={"n": number},
            expected=number,
            metadata={"k": number},
            tags=["t"],
        )
    dataset.flush()
    dataset.delete("row2")
    dataset.flush()
    again = braintrust.init_dataset(project="Alpha", name="Questions")
    rows = [
        [row["id"], row["input"], row["expected"], row["metadata"]]
        for row in again.fetch(batch_size=2)
    ]
    return {"rows": rows, "version": again.version, "id": again.id}


def run_experiments() -> Dict[str, Any]:
    dataset = braintrust.init_dataset(project="Alpha", name="Questions")
    experiment = braintrust.init(
        project="Alpha", experiment="by hand", dataset=dataset, metadata={"m": [1]}
    )
    for row in dataset:
        experiment.log(
            input=row["input"], output=row["expected"], scores={"exact": 0.25}, id="of " + row["id"]
        )
    summary = experiment.summarize()
    result = braintrust.Eval(
        "Alpha",
        experiment_name="evaluated",
        data=lambda: [{"input": 1, "expected": 1}, {"input": 2, "expected": 3}],
        task=lambda value: value,
        scores=[exact],
    )
    means = {name: score.score for name, score in result.summary.scores.items()}
    opened = braintrust.init(project="Alpha", experiment="by hand", open=True)
    return {
        "by hand": {name: score.score for name, score in summary.scores.items()},
        "evaluated": means,
        "opened": sorted(row["id"] for row in opened),
    }


def exact(input: Any, output: Any, expected: Any) -> float:  # noqa: A002 - the SDK's names
    return 1.0 if output == expected else 0.0


def load_prompt() -> Dict[str, Any]:
    prompt = braintrust.load_prompt(project="Alpha", slug="greet")
    built = prompt.build(name="Bob")
    return {"id": prompt.id, "model": built["model"], "messages": built["messages"]}


STEPS = {
    "spans": log_nested_spans,
    "attachment": attach,
    "dataset": build_dataset,
    "experiments": run_experiments,
    "prompt": load_prompt,
}

if __name__ == "__main__":
    with open(sys.argv[1], "w") as file:
        json.dump({name: step() for name, step in STEPS.items()}, file)
