"""Compares an earlier plan with the plan of today, before the earlier plan is carried out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from bt_migrate.config.bounded import MAX_LARGE_BYTES, read_text_bounded
from bt_migrate.errors import UsageError
from bt_migrate.report.display import and_more, number, plural, quoted
from bt_migrate.report.plan_file import PLAN_VERSION
from bt_migrate.state.records import ShapeError, check_part

SHOWN_CHANGES = 10
MAKE_PLAN = "make one with --dry-run --plan-out plan.json"
LOGS = "logs"
MADE_FOR = ("source", "destination", "selection")


@dataclass
class PlannedAction:
    resource: str
    project: str
    id: str
    name: str
    action: str
    reason: str
    fields: List[str]


@dataclass
class PlannedRows:
    project: str
    id: str
    name: str
    rows: Optional[int]
    rows_there: Optional[int]


@dataclass
class PlannedStream:
    kind: str
    objects: List[PlannedRows]


@dataclass
class Plan:
    """The fields of a plan that a real run must agree with."""

    plan_version: int
    source: Dict[str, Any]
    destination: Dict[str, Any]
    selection: Dict[str, Any]
    objects: List[PlannedAction]
    streams: List[PlannedStream]
    losses: List[Dict[str, Any]]


def read_plan(path: Path) -> Dict[str, Any]:
    """Returns the plan in a file. Raises UsageError."""
    try:
        plan = json.loads(read_text_bounded(path, MAX_LARGE_BYTES))
        check_part(Plan, plan)
        if plan["plan_version"] != PLAN_VERSION:
            raise ShapeError(f"its plan_version is {plan['plan_version']}, not {PLAN_VERSION}")
    except OSError as error:
        raise UsageError(f"--plan: {path} cannot be read ({error.strerror}); {MAKE_PLAN}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"--plan: {path} is not a plan of this version ({error}); {MAKE_PLAN}"
        ) from None
    return dict(plan)


def plan_digest(plan: Mapping[str, Any]) -> str:
    """Returns the digest by which a run recognizes the plan that it carries out."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode("utf-8")).hexdigest()


def refuse_changes(
    path: str, wanted: Mapping[str, Any], today: Mapping[str, Any], new_plan: str
) -> None:
    """Raises UsageError that lists the differences between the two plans, if there are any.

    `new_plan`: the command that makes a new plan.
    """
    changes = list(plan_changes(wanted, today))
    if changes:
        first = "; ".join(changes[:SHOWN_CHANGES])
        raise UsageError(
            f"nothing was written: the plan of {path} no longer holds:"
            f" {and_more(first, len(changes) - SHOWN_CHANGES)}. New plan: {new_plan}"
        )


def log_rows_grew(wanted: Mapping[str, Any], today: Mapping[str, Any]) -> bool:
    """Whether the source of the plan is still written to: a window would keep the plan as it is."""
    before, now = _log_rows(wanted), _log_rows(today)
    return any((now.get(project) or 0) > (rows or 0) for project, rows in before.items())


def _log_rows(plan: Mapping[str, Any]) -> Dict[str, Optional[int]]:
    return {
        held["id"]: held["rows"]
        for stream in plan["streams"]
        if stream["kind"] == LOGS
        for held in stream["objects"]
    }


def plan_changes(wanted: Mapping[str, Any], today: Mapping[str, Any]) -> Iterator[str]:
    """Yields one text for each difference between the two plans."""
    for name in MADE_FOR:
        if wanted[name] != today[name]:
            yield f"{name} is {_differing(today[name], wanted[name])}"
    yield from _changed(_actions(wanted), _actions(today))
    yield from _changed(_rows(wanted), _rows(today))
    yield from _changed(_losses(wanted), _losses(today))


def _differing(today: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    names = [name for name in today if today[name] != wanted.get(name)]
    return ", ".join(f"{name} {today[name]!r} instead of {wanted.get(name)!r}" for name in names)


Described = Dict[Tuple[str, ...], Tuple[str, str]]  # key -> (name, planned action)


def _changed(wanted: Described, today: Described) -> Iterator[str]:
    for key in [*wanted, *(key for key in today if key not in wanted)]:
        name = (wanted.get(key) or today[key])[0]
        before = wanted[key][1] if key in wanted else "not planned"
        now = today[key][1] if key in today else "not there"
        if before != now:
            yield f"{name}: {before}, now {now}"


def _actions(plan: Mapping[str, Any]) -> Described:
    return {
        (item["resource"], item["project"], item["id"]): (_name(item), _action_text(item))
        for item in plan["objects"]
    }


def _name(item: Mapping[str, Any]) -> str:
    place = f" of {quoted(item['project'])}" if item["project"] else ""
    return f"{item['resource']} {quoted(item['name'])}{place}"


def _action_text(item: Mapping[str, Any]) -> str:
    details = ", ".join([*filter(None, [item["reason"]]), *item["fields"]])
    return f"{item['action']} ({details})" if details else str(item["action"])


def _rows(plan: Mapping[str, Any]) -> Described:
    return {
        (stream["kind"], held["id"]): (
            f"rows of {_name({**held, 'resource': stream['kind']})}",
            f"{plural(held['rows'], 'row')}, {number(held['rows_there'])} there",
        )
        for stream in plan["streams"]
        for held in stream["objects"]
    }


def _losses(plan: Mapping[str, Any]) -> Described:
    losses: Described = {}
    for loss in plan["losses"]:
        words = [
            str(loss.get(name, "")) for name in ("kind", "resource", "project", "name", "path")
        ]
        name = f"loss {loss.get('kind')} of {loss.get('resource')} {quoted(loss.get('name'))}"
        losses[tuple(words)] = (name, f"{loss.get('count', 1)} times")
    return losses
