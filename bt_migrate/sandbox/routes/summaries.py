"""Routes that sum up experiments and datasets, as the SDKs print them."""

from __future__ import annotations

from typing import Collection, Dict, List, Optional, Sequence

import bt_migrate.sandbox.data.inserts as inserts
import bt_migrate.sandbox.data.objects as objects
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.rows import Json, encode
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.data.store import Entry, Store
from bt_migrate.sandbox.routes.calls import Api, Call, json_answer

Scores = Dict[str, Dict[str, float]]  # score -> input (as text) -> value
UNIT_OF_METRIC = {
    "llm_calls": "", "tool_calls": "", "errors": "", "llm_errors": "", "tool_errors": "",
    "prompt_tokens": "tok", "prompt_cached_tokens": "tok", "prompt_cache_creation_tokens": "tok",
    "completion_tokens": "tok", "total_tokens": "tok",
}  # fmt: skip


def summarize(api: Api, call: Call, kind: str, object_id: str) -> Answer:
    """GET /v1/{experiment|dataset}/{id}/summarize."""
    with api.store.lock:
        rows = inserts.row_set(api.store, call.key.org_ids, kind, object_id)
        entry = objects.get(api.store, call.key.org_ids, KINDS[kind], object_id)
        project = api.store.entries["project"][entry.data["project_id"]].data
        place = "{}/app/p/{}".format(api.url, project["name"])
        value: Json = {"project_name": project["name"], "project_url": place}
        value.update(
            {kind + "_name": entry.data["name"], kind + "_url": place + "/" + entry.data["name"]}
        )
        if _is_asked(call, "summarize_data"):
            value["data_summary"] = {"total_records": len(rows.rows)}
        if kind == "experiment" and _is_asked(call, "summarize_scores"):
            base = base_of(api.store, call, entry)
            value["comparison_experiment_name"] = base.data["name"] if base is not None else None
            base_id = base.data["id"] if base is not None else None
            value.update(comparison(api.store, call.key.org_ids, object_id, base_id))
    return json_answer(value)


def _is_asked(call: Call, name: str) -> bool:
    return call.parameter(name).lower() == "true"


def base_of(store: Store, call: Call, entry: Entry) -> Optional[Entry]:
    """The experiment asked for, else the base experiment, else the latest other in the project."""
    wanted = call.parameter("comparison_experiment_id") or entry.data["base_exp_id"]
    if wanted:
        return store.find(KINDS["experiment"], call.key.org_ids, wanted)
    query = {"project_id": [entry.data["project_id"]]}
    others = objects.list_all(store, call.key.org_ids, KINDS["experiment"], query)
    return next((other for other in others if other is not entry), None)


def comparison(
    store: Store, org_ids: Sequence[str], experiment_id: str, base_id: Optional[str]
) -> Json:
    scores = _scores(store, org_ids, experiment_id)
    base = _scores(store, org_ids, base_id) if base_id else {}
    compared = {
        name: _score_summary(name, values, base.get(name, {})) for name, values in scores.items()
    }
    return {"scores": compared, "metrics": _metrics(_rows(store, org_ids, experiment_id))}


def _score_summary(name: str, values: Dict[str, float], base: Dict[str, float]) -> Json:
    """The mean, and how it differs from the base; rows are matched by their input."""
    pairs = [(value, base[key]) for key, value in values.items() if key in base]
    summary: Json = {"name": name, "score": _mean(values.values())}
    summary["improvements"] = sum(1 for new, old in pairs if new > old)
    summary["regressions"] = sum(1 for new, old in pairs if new < old)
    if base:
        summary["diff"] = summary["score"] - _mean(base.values())
    return summary


def _scores(store: Store, org_ids: Sequence[str], experiment_id: str) -> Scores:
    """The scores of each trace, on its root or on its scorer spans, by the input of the root."""
    rows = _rows(store, org_ids, experiment_id)
    inputs = {row["root_span_id"]: encode(row["input"]) for row in rows if row["is_root"]}
    scores: Scores = {}
    for row in rows:
        for name, score in (row["scores"] or {}).items():
            if score is not None:
                case = inputs.get(row["root_span_id"], str(row["root_span_id"]))
                scores.setdefault(name, {})[case] = score
    return scores


def _rows(store: Store, org_ids: Sequence[str], experiment_id: str) -> List[Json]:
    rows = inserts.row_set(store, org_ids, "experiment", experiment_id).rows
    return [row.value() for row in rows]


def _metrics(rows: Sequence[Json]) -> Json:
    """The means over traces: numbers of spans and of tokens; and how long a task takes."""
    traces = max(1, len({row["root_span_id"] for row in rows}))
    metrics: Json = {}
    for name, unit in UNIT_OF_METRIC.items():
        if unit:
            total = sum((row["metrics"] or {}).get(name) or 0 for row in rows)
        else:
            total = _spans_counted(rows, name)
        metrics[name] = _metric_summary(name, total / traces, unit)
    tasks = [row["metrics"] for row in rows if _type(row) == "task"]
    durations = [times["end"] - times["start"] for times in tasks if times and "end" in times]
    metrics["duration"] = _metric_summary("duration", _mean(durations), "s")
    return metrics


def _spans_counted(rows: Sequence[Json], name: str) -> int:
    """How many spans "llm_calls", "tool_errors", … count; "errors" are those of all types."""
    span_type, _, what = name.rpartition("_")
    spans = [row for row in rows if span_type in ("", _type(row))]
    return sum(1 for row in spans if what == "calls" or row["error"] is not None)


def _type(row: Json) -> Optional[str]:
    return (row["span_attributes"] or {}).get("type")


def _metric_summary(name: str, value: float, unit: str) -> Json:
    summary: Json = {"name": name, "metric": _number(value), "unit": unit}
    return {**summary, "improvements": 0, "regressions": 0}


def _mean(values: Collection[float]) -> float:
    return _number(sum(values) / len(values)) if values else 0


def _number(value: float) -> float:
    """Returns a number as the service writes it: without a fraction if it is whole."""
    return int(value) if value == int(value) else value
