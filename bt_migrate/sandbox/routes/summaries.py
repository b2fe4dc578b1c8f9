"""Routes that sum up experiments and datasets, as the SDKs print them."""

from __future__ import annotations

from typing import Dict, Optional, Sequence

import bt_migrate.sandbox.data.inserts as inserts
import bt_migrate.sandbox.data.objects as objects
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.rows import Json, encode
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.data.store import Entry, Store
from bt_migrate.sandbox.routes.calls import Api, Call, json_answer

Scores = Dict[str, Dict[str, float]]  # score -> input (as text) -> value


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
            base = _base_of(api.store, call, entry)
            value["comparison_experiment_name"] = base.data["name"] if base is not None else None
            base_id = base.data["id"] if base is not None else None
            value.update(comparison(api.store, call.key.org_ids, object_id, base_id))
    return json_answer(value)


def _is_asked(call: Call, name: str) -> bool:
    return call.parameter(name).lower() == "true"


def _base_of(store: Store, call: Call, entry: Entry) -> Optional[Entry]:
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
    return {"scores": compared, "metrics": {}}


def _score_summary(name: str, values: Dict[str, float], base: Dict[str, float]) -> Json:
    """The mean, and how it differs from the base; rows are matched by their input."""
    pairs = [(value, base[key]) for key, value in values.items() if key in base]
    summary: Json = {"name": name, "score": sum(values.values()) / len(values)}
    summary["improvements"] = sum(1 for new, old in pairs if new > old)
    summary["regressions"] = sum(1 for new, old in pairs if new < old)
    if base:
        summary["diff"] = summary["score"] - sum(base.values()) / len(base)
    return summary


def _scores(store: Store, org_ids: Sequence[str], experiment_id: str) -> Scores:
    """The scores of each trace, on its root or on its scorer spans, by the input of the root."""
    rows = [
        row.value() for row in inserts.row_set(store, org_ids, "experiment", experiment_id).rows
    ]
    inputs = {row["root_span_id"]: encode(row["input"]) for row in rows if row["is_root"]}
    scores: Scores = {}
    for row in rows:
        for name, score in (row["scores"] or {}).items():
            if score is not None:
                case = inputs.get(row["root_span_id"], str(row["root_span_id"]))
                scores.setdefault(name, {})[case] = score
    return scores
