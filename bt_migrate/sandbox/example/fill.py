"""Fills one organization of the sandbox with an example, for `--demo` and the end-to-end tests.

The example is realistic and difficult: lists are not in order of dependency, names are not valid as
file names, references form chains and cycles and cross projects, and users are missing in the
destination.
This module owns the order of filling, the objects of the whole organization, and what reacts to
data; objects.py has the other objects, rows.py the rows, values.py the values inside them.
"""

from __future__ import annotations

import copy
import random
import re
from typing import Any, Dict, Iterable, List, Tuple

import bt_migrate.sandbox.example.objects as objects
import bt_migrate.sandbox.example.rows as example_rows
import bt_migrate.sandbox.example.values as example_values
from bt_migrate.sandbox.example.objects import SMALL_PROJECTS, Spec
from bt_migrate.sandbox.example.rows import Row

ExampleObjects = Dict[str, Row]  # label -> the object as the sandbox returned it

MAX_ROWS_PER_INSERT = 500
MIN_LOG_ROWS = 600  # fewer rows cannot hold all awkward cases

# fmt: off
SOURCE_USERS: List[Dict[str, str]] = [
    {"email": "ana.silva@acme.example", "given_name": "Ana", "family_name": "Silva"},
    {"email": "ben.okafor@acme.example", "given_name": "Ben", "family_name": "Okafor"},
    {"email": "chloe.dubois@acme.example", "given_name": "Chloé", "family_name": "Dubois"},
    {"email": "yuki.tanaka@acme.example", "given_name": "由紀", "family_name": "田中"},
    {"email": "omar+evals@acme.example", "given_name": "عمر", "family_name": "حداد"},
    {"email": "left.the.company@acme.example", "given_name": "Lee", "family_name": ""},
]
# Three people are in both organizations, three have left, and one is new.
DEST_USERS: List[Dict[str, str]] = SOURCE_USERS[:3] + [
    {"email": "nora.lind@acme.example", "given_name": "Nora", "family_name": "Lind"},
]

# Roles and groups are created without members and joined by MEMBERSHIPS, so that they depend on
# each other neither from old to new nor from new to old: auditor <- reviewer <- lead <-
# director, and
# everyone <- evaluators <- judges.
ORGANIZATION: List[Spec] = [
    ("ai_secret", "openai", {
        "name": "OPENAI_API_KEY", "type": "openai", "secret": "example-not-a-real-openai-key",
        "metadata": {"organization_id": "org-acme", "models": ["gpt-4o", "gpt-4o-mini"]}}),
    ("ai_secret", "anthropic", {
        "name": "ANTHROPIC_API_KEY", "type": "anthropic",
            "secret": "example-not-a-real-anthropic-key",
        "metadata": {}}),
    ("ai_secret", "gateway", {
        "name": "in-house gateway", "type": "custom", "secret": "example-not-a-real-gateway-key",
        "metadata": {"api_base": "https://llm.acme.example/v1", "customModels": {
            "acme-7b": {"format": "openai", "flavor": "chat", "input_cost": 0.1}}}}),
    ("role", "reviewer", {"name": "Reviewer", "description": "Reads and scores",
        "member_permissions": [
        {"permission": "update", "restrict_object_type": "project_log"}]}),
    ("role", "director", {"name": "Director", "member_permissions": [{"permission": "read_acls"}]}),
    ("role", "auditor", {"name": "Auditor", "member_permissions": [
        {"permission": "read"}, {"permission": "read_acls", "restrict_object_type": "project"}]}),
    ("role", "lead", {"name": "Lead, \"acting\"", "member_permissions": [
        {"permission": "create", "restrict_object_type": "experiment"}]}),
    ("group", "evaluators", {"name": "Evaluators", "description": "People who build evals"}),
    ("group", "judges", {"name": "Judges ⚖️"}),
    ("group", "everyone", {"name": "Everyone at support", "description": ""}),
    ("group", "nobody", {"name": "nobody yet"}),
    ("environment", "dev", {"name": "Development", "slug": "dev"}),
    ("environment", "production", {"name": "Production", "slug": "production",
                                   "description": "What customers see"}),
]
PROJECT_GROUPS: List[Spec] = [
    ("project_group", "customers", {"name": "Customer facing 🌍", "description": "On the website"}),
    ("project_group", "unused", {"name": "no project yet"}),
]
GROUPED: List[Spec] = [
    ("project_group", "customers", {"add_member_projects": ["«support»", "«planner»"]}),
    ("project", "support", {"user_id": "«user:ben.okafor»"}),
]
MEMBERSHIPS: List[Spec] = [
    ("role", "reviewer", {"add_member_roles": ["«auditor»"]}),
    ("role", "lead", {"add_member_roles": ["«reviewer»", "«role:Viewer»"]}),
    ("role", "director", {"add_member_roles": ["«lead»", "«role:Engineer»"]}),
    ("group", "everyone", {"add_member_users": [
        "«user:ana.silva»", "«user:ben.okafor»", "«user:chloe.dubois»",
            "«user:left.the.company»"]}),
    ("group", "evaluators", {"add_member_users": ["«user:yuki.tanaka»"],
                             "add_member_groups": ["«everyone»"]}),
    ("group", "judges", {"add_member_users": ["«user:omar+evals»", "«user:ana.silva»"],
                         "add_member_groups": ["«evaluators»"]}),
]

SCORES: List[Spec] = [
    ("project_score", "support/rating", {
        "name": "Rating", "score_type": "slider", "description": "0 to 1",
        "config": {"visibility": {"users": ["«user:ana.silva»", "«user:yuki.tanaka»"],
                                  "groups": ["«judges»"]}}}),
    ("project_score", "support/tone_score", {
        "name": "Tone", "score_type": "categorical",
        "config": {"multi_select": False, "destination": "expected"},
        "categories": [{"name": "warm 😊", "value": 1}, {"name": "neutral", "value": 0.5},
                       {"name": "cold", "value": 0}]}),
    ("project_score", "support/overall", {"name": "Overall", "score_type": "weighted",
                                          "categories": {"Rating": 0.7, "Tone": 0.3}}),
    ("project_score", "support/worst", {"name": "Worst of all", "score_type": "minimum",
                                        "categories": ["Rating", "Tone"]}),
    ("project_score", "support/best", {"name": "Best of all", "score_type": "maximum",
                                       "categories": ["Rating", "Tone"]}),
    ("project_score", "support/remark", {
        "name": "Remark", "score_type": "free-form",
        "config": {"destination": "metadata", "object_types": ["project_logs"],
                   "condition": {"when": {"clauses": ["metadata.prompt.id = '«support/triage»'"]},
                                 "behavior": "hidden"}}}),
    ("project_score", "support/online", {"name": "Every tenth answer", "score_type": "online",
        "config": {
        "online": {
            "sampling_rate": 0.1, "apply_to_root_span": True, "scope": {"type": "span"},
            "scorers": [{"type": "function", "id": "«support/judge»",
                "version": "«support/judge._xact_id»"},
                        {"type": "slug", "project_id": "«support»", "slug": "tone"},
                        {"type": "global", "name": "Factuality", "function_type": "scorer"}],
            "btql_filter": "metadata.prompt.id = '«support/triage»' and metadata.tier = 'gold'"}}}),
    ("project_score", "planner/online", {"name": "オンライン", "score_type": "online",
        "config": {"online": {
        "sampling_rate": 1, "apply_to_span_names": ["旅程"],
        "scorers": [{"type": "function", "id": "«support/judge»"}]}}}),
]

AUTOMATIONS: List[Spec] = [
    ("org_automation", "retention", {"org_id": "«org»", "name": "Ten years", "config": {
        "event_type": "retention", "object_type": "dataset", "retention_days": 3650}}),
    ("project_automation", "support/alert", {"name": "Low rating", "description": "Wakes one",
        "config": {
        "event_type": "logs", "btql_filter": "scores.Rating < 0.2 and project_id = '«support»'",
        "interval_seconds": 3600, "action": {"type": "webhook",
            "url": "https://hooks.acme.example/T000/B000"}}}),
    ("project_automation", "support/retention", {"name": "Keep a year", "config": {
        "event_type": "retention", "object_type": "project_logs", "retention_days": 365}}),
    ("project_automation", "support/query", {"name": "async query 7", "config": {
        "event_type": "async_query", "created_by_user_id": "«user:ana.silva»",
            "object_type": "project_logs",
        "object_id": "«support»", "query": "select: * | from: project_logs('«support»') spans",
        "format": "jsonl"}}),
    ("project_automation", "support/promoted", {"name": "Prompt promoted", "config": {
        "event_type": "environment_update", "environment_filter": ["production"],
        "action": {"type": "slack", "workspace_id": "T0ACME", "channel": "#releases",
                   "message_template": "{{prompt}} 🚀"}}}),
    ("project_automation", "support/topics_run", {"name": "Topics", "config": {
        "event_type": "topic", "status": "active", "sampling_rate": 0.5,
        "facet_functions": [{"type": "function", "id": "«support/task_facet»",
                             "version": "«support/task_facet._xact_id»"},
                            {"type": "function", "id": "«support/mood_facet»"}],
        "topic_map_functions": [{"function": {"type": "function", "id": "«support/topics»",
                                              "version": "«support/topics._xact_id»"}}],
        "data_scope": {"type": "experiment", "experiment_id": "«support/baseline»"},
        "btql_filter": "is_root"}}),
    ("project_automation", "support/digest", {"name": "Monday digest", "config": {
        "event_type": "topic_digest", "status": "paused", "scheduled_time_minutes_utc": 480,
        "topic_map_function_ids": ["«support/topics»"],
        "action": {"type": "slack", "workspace_id": "T0ACME", "channel": "#support"}}}),
    ("project_automation", "support/export", {"name": "Refunds", "config": {
        "event_type": "btql_export", "format": "parquet", "export_path": "s3://acme-lake/refunds",
        "export_definition": {"type": "btql_query", "btql_query":
            "select: * | from: project_logs('«support»') spans"}, "interval_seconds": 3600,
        "credentials": {"type": "aws_iam", "role_arn": "arn:aws:iam::000000000000:role/example",
                        "external_id": "«org»"}}}),
    ("project_automation", "planner/export", {"name": "毎晩", "config": {
        "event_type": "btql_export", "status": "paused", "export_definition": {"type": "log_spans"},
        "format": "jsonl", "export_path": "s3://acme-lake/planner", "interval_seconds": 86400,
        "credentials": {"type": "aws_iam", "role_arn": "arn:aws:iam::000000000000:role/example",
                        "external_id": "«org»"}}}),
]

SETTINGS: List[Spec] = [
    ("project", "support", {"settings": {
        "comparison_key": "metadata.ticket", "baseline_experiment_id": "«support/baseline»",
        "disable_realtime_queries": False,
        "spanFieldOrder": [{"object_type": "project_logs", "column_id": "output",
            "position": "0|hzzzzz:",
                            "layout": "full"},
                           {"object_type": "experiment", "column_id": "input",
                               "position": "0|i00007:",
                            "layout": None}],
        "remote_eval_sources": [{"url": "https://evals.acme.example/dev", "name": "dev"}],
        "default_preprocessor": {"type": "function", "id": "«support/flatten»",
                                 "version": "«support/flatten._xact_id»"}}}),
    ("project", "planner", {"settings": {
        "comparison_key": "input", "baseline_experiment_id": "«planner/elsewhere»",
        "default_preprocessor": {"type": "global", "name": "thread",
            "function_type": "preprocessor"}}}),
]

ENV_VARS: List[Spec] = [
    ("env_var", "DESK_TOKEN", {"object_type": "organization", "object_id": "«org»",
        "name": "DESK_TOKEN",
                               "value": "example-not-a-real-token"}),
    ("env_var", "CRM_TOKEN", {"object_type": "project", "object_id": "«support»",
        "name": "CRM_TOKEN",
                              "metadata": {"rotated": "yearly"}}),
    ("env_var", "LOOKUP_URL", {"object_type": "function", "object_id": "«support/lookup»",
                               "name": "LOOKUP_URL", "value": "example"}),
]

# object type, label of the object, view type, name, other fields
VIEWS: List[Tuple[str, str, str, str, Dict[str, Any]]] = [
    ("project", "support", "logs", "Angry, in production",
     {"user_id": "«user:ben.okafor»", "view_data": {"search": {
         "filter": [{"text": "metadata.prompt.id = '«support/triage»'", "originType": "btql"}],
         "sort": [{"text": "created DESC"}], "tag": [{"text": "needs review, urgent"}],
             "match": []}}}),
    ("project", "support", "experiments", "Compared 🔬", {"options": {
        "columnVisibility": {"scores.Rating": True, "metadata": False},
        "columnOrder": ["name", "scores.Rating"], "columnSizing": {"name": 220.5},
        "grouping": "metadata.model", "rowHeight": "tall", "tallGroupRows": True,
        "yMetric": {"type": "score", "value": "Rating"},
        "chartAnnotations": [{"id": "«support/bigger»", "text": "new model"}]}}),
    ("project", "support", "monitor", "Cost by model", {"options": {"viewType": "monitor",
        "projectId": "«planner»", "options": {
        "spanType": "range", "rangeValue": "7d", "projectId": "«support»", "type": "project",
        "groupBy": "metadata.model", "chartVisibility": {"cost": True, "latency": False},
            "tzUTC": True}}}),
    ("project", "library", "monitor", "Support, seen from here",
     {"options": {"viewType": "monitor", "options": {"projectId": "«support»",
         "type": "experiment"}},
      "view_data": {"custom_charts": {"1": {"title": "Refunds",
          "filter": "project_id = '«support»'"}}}}),
    ("project", "support", "for_review_project_log", "Weekly review",
        {"user_id": "«user:yuki.tanaka»"}),
    ("project", "planner", "logs", "すべて", {"view_data": {"search": {"filter": [], "sort": []}}}),
    ("dataset", "support/tickets", "dataset", "Gold tier",
     {"view_data": {"search": {"filter": [{"text": "metadata.tier = 'gold'"}]}}}),
    ("experiment", "support/baseline", "experiment", "Failures",
     {"user_id": "«user:ana.silva»", "view_data": {"search": {
         "filter": [{"text": "error IS NOT NULL and experiment_id != '«support/reworded»'"}]}}}),
    ("experiment", "planner/elsewhere", "experiment", "Failures",
     {"options": {"freezeColumns": True, "layout": "list"}}),
]

# It names the third of the views.
AFTER_VIEWS: List[Spec] = [
    ("project_automation", "support/windowed", {"name": "Costs rise", "config": {
        "event_type": "windowed", "status": "paused",
        "window": {"window_seconds": 3600, "evaluation_delay_seconds": 60, "schedule": {}},
        "loop": {"agent_slug": "night-shift", "prompt": "Look at the costs",
                 "target": {"type": "dashboard", "id": "«view:2»"}}, "actions": []}}),
]

# object type, label of the object, who, and a permission (with its restriction) or a role
ACLS: List[Tuple[str, str, str, Dict[str, str]]] = [
    ("organization", "org", "group_id:«everyone»", {"permission": "read",
        "restrict_object_type": "project"}),
    ("organization", "org", "user_id:«user:ana.silva»", {"role_id": "«role:Engineer»"}),
    ("org_project", "org", "group_id:«evaluators»", {"permission": "create"}),
    ("project", "support", "group_id:«judges»", {"role_id": "«lead»"}),
    ("project", "support", "user_id:«user:ben.okafor»",
     {"permission": "update", "restrict_object_type": "dataset"}),
    ("project", "support", "user_id:«user:left.the.company»", {"permission": "read"}),
    ("project", "long", "group_id:«everyone»", {"role_id": "«role:Viewer»"}),
    ("project_log", "support", "group_id:«judges»", {"role_id": "«auditor»"}),
    ("project_log", "planner", "user_id:«user:yuki.tanaka»", {"permission": "read"}),
    ("dataset", "support/tickets", "group_id:«evaluators»", {"permission": "update"}),
    ("experiment", "support/baseline", "user_id:«user:chloe.dubois»", {"permission": "read"}),
    ("prompt", "support/triage", "group_id:«evaluators»", {"permission": "delete"}),
    ("prompt", "support/lookup", "user_id:«user:ana.silva»", {"permission": "update"}),
    ("group", "judges", "user_id:«user:ana.silva»", {"permission": "update"}),
    ("role", "auditor", "group_id:«everyone»", {"permission": "read"}),
    ("project_group", "customers", "group_id:«judges»", {"permission": "read"}),
    ("project_group_projects", "customers", "group_id:«evaluators»", {"permission": "update"}),
    # No API makes a playground on the other side.
    ("prompt_session", "support/playground", "user_id:«user:ana.silva»", {"permission": "read"}),
]
# fmt: on

MARK = re.compile("«([^»]+)»")


def fill_example(org: Any, rows: int = 3000, seed: int = 7) -> None:
    """Fill the empty `org`, whose users are SOURCE_USERS, with `rows` log rows or more.

    The same seed gives the same names, rows and counts; the ids of objects are the sandbox's own.
    """
    rows = max(rows, MIN_LOG_ROWS)
    rng = random.Random(seed)
    by_label = known_before(org)
    attach(org, by_label, rng)
    create(org, by_label, ORGANIZATION)
    patch(org, by_label, MEMBERSHIPS)
    create(org, by_label, objects.PROJECTS + PROJECT_GROUPS + objects.DATASETS)
    patch(org, by_label, GROUPED)
    fill_datasets(org, by_label, rng, rows)
    create(org, by_label, objects.DEFINITIONS)
    patch(org, by_label, objects.KNOTS)
    assign(org, by_label)
    create(org, by_label, objects.EXPERIMENTS)
    patch(org, by_label, objects.BASES)
    fill_experiments(org, by_label, rng)
    fill_logs(org, by_label, rng, rows)
    fill_picked(org, by_label)
    create(org, by_label, objects.LATE + ENV_VARS + SCORES + AUTOMATIONS)
    patch(org, by_label, SETTINGS)
    create(org, by_label, views() + acls() + AFTER_VIEWS)


def fill_destination(org: Any) -> None:
    """Check that the destination has its users and nothing else."""
    emails = sorted(user["email"] for user in org.objects("user"))
    if emails != sorted(user["email"] for user in DEST_USERS):
        raise ValueError(f"the destination of the example has DEST_USERS, not {emails}")


def known_before(org: Any) -> ExampleObjects:
    """What is referred to and not created here: the organization, its users, built-in roles."""
    by_label: ExampleObjects = {"org": {"id": org.id}}
    by_label.update({"user:" + user["email"].split("@")[0]: user for user in org.objects("user")})
    by_label.update(
        {"role:" + role["name"]: role for role in org.objects("role") if role["org_id"] is None}
    )
    return by_label


def resolve(value: Any, by_label: ExampleObjects, project: str = "") -> Any:
    """`value` with every «label» replaced by that object's id, and «label.field» by a field of it.

    «~name» is short for «project/name». A string that is one mark alone becomes the field itself,
    whatever its type.
    """
    if isinstance(value, dict):
        return {
            resolve(key, by_label, project): resolve(item, by_label, project)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [resolve(item, by_label, project) for item in value]
    if not isinstance(value, str):
        return value
    whole = MARK.fullmatch(value)
    if whole:
        return copy.deepcopy(marked(whole.group(1), by_label, project))
    return MARK.sub(lambda mark: str(marked(mark.group(1), by_label, project)), value)


def marked(mark: str, by_label: ExampleObjects, project: str) -> Any:
    label = project + "/" + mark[1:] if mark.startswith("~") else mark
    if label in by_label:
        return by_label[label]["id"]
    holder, _, field = label.rpartition(".")
    if field not in by_label.get(holder, {}):
        raise LookupError(f"«{mark}» names no object, or a later one: see fill_example")
    return by_label[holder][field]


def create(org: Any, by_label: ExampleObjects, specs: Iterable[Spec]) -> None:
    """Create each object in the project that its label names, and remember it in `by_label`."""
    for kind, label, fields in specs:
        project, inside, _ = label.partition("/")
        resolved = resolve(fields, by_label, project)
        if inside:
            resolved["project_id"] = by_label[project]["id"]
        by_label[label] = org.create(kind, resolved)


def patch(org: Any, by_label: ExampleObjects, specs: Iterable[Spec]) -> None:
    """Patch objects. `by_label` keeps their first version, which other objects pin."""
    for kind, label, fields in specs:
        org.patch(kind, by_label[label]["id"], resolve(fields, by_label, label.partition("/")[0]))


def assign(org: Any, by_label: ExampleObjects) -> None:
    """Assign environments to versions. `by_label` has the first version of each object."""
    for slug, label in objects.ASSIGNMENTS.items():
        org.assign(by_label[label]["id"], slug, by_label[label]["_xact_id"])
    for slug, label in objects.LATEST_ASSIGNMENTS.items():
        latest = org.versions("prompt", by_label[label]["id"])[-1]
        org.assign(by_label[label]["id"], slug, latest["_xact_id"])


def attach(org: Any, by_label: ExampleObjects, rng: random.Random) -> None:
    for label, filename, content_type, content in example_values.files(rng):
        reference = org.attach(content, filename=filename, content_type=content_type)
        by_label["file:" + label] = {"reference": reference}


def insert(org: Any, kind: str, object_id: str, rows: List[Row]) -> None:
    for start in range(0, len(rows), MAX_ROWS_PER_INSERT):
        org.insert(kind, object_id, rows[start : start + MAX_ROWS_PER_INSERT])


def views() -> List[Spec]:
    """A view belongs to an object by two fields, not to a project: its label has no slash."""
    specs: List[Spec] = []
    for number, (object_type, label, view_type, name, fields) in enumerate(VIEWS):
        owner = {"object_type": object_type, "object_id": f"«{label}»"}
        specs.append(
            ("view", f"view:{number}", dict(fields, view_type=view_type, name=name, **owner))
        )
    return specs


def acls() -> List[Spec]:
    specs: List[Spec] = []
    for number, (object_type, label, who, what) in enumerate(ACLS):
        field, _, mark = who.partition(":")
        owner = {"object_type": object_type, "object_id": f"«{label}»"}
        specs.append(("acl", f"acl:{number}", dict(what, **owner, **{field: mark})))
    return specs


def fill_datasets(org: Any, by_label: ExampleObjects, rng: random.Random, rows: int) -> None:
    """Insert the rows that others refer to. `head` of a dataset is its newest transaction."""
    contents = {
        "support/tickets": example_rows.tickets(rng, rows // 100),
        "support/history": example_rows.tickets(rng, rows // 5),
        "planner/trips": example_rows.trips(rng, rows // 100),
    }
    originals = contents["support/tickets"]
    contents["support/twins"] = [dict(row, input={"question": "Reworded"}) for row in originals]
    contents.update(
        {project + "/golden": example_rows.tickets(rng, 3) for project in SMALL_PROJECTS}
    )
    for label, inserted in contents.items():
        insert(org, "dataset", by_label[label]["id"], inserted)
        by_label[label]["head"] = newest(org, by_label[label]["id"])
    grow_trips(org, by_label["planner/trips"], contents["planner/trips"])


def newest(org: Any, dataset_id: str) -> str:
    """The newest transaction of a dataset's rows."""
    return str(max(row["_xact_id"] for row in org.rows("dataset", dataset_id)))


def grow_trips(org: Any, trips: Row, first: List[Row]) -> None:
    """Write two more states of a dataset: rows are edited, added and deleted between them."""
    trips["drafted"] = trips["head"]
    edited = dict(first[0], expected={"city": "奈良"})
    insert(org, "dataset", trips["id"], [edited, dict(first[1], id="later")])
    gone = [{"id": row["id"], "_object_delete": True} for row in first[1:3]]
    insert(org, "dataset", trips["id"], [*gone, dict(first[3], tags=["日本語"])])
    trips["reviewed"] = newest(org, trips["id"])
    back = [first[2], dict(edited, expected=None), {"id": "later", "_object_delete": True}]
    insert(org, "dataset", trips["id"], back)
    trips["head"] = newest(org, trips["id"])


def fill_experiments(org: Any, by_label: ExampleObjects, rng: random.Random) -> None:
    for kind, label, fields in objects.EXPERIMENTS:
        if "dataset_id" not in fields:
            continue
        experiment = by_label[label]
        cases = org.rows("dataset", experiment["dataset_id"])
        insert(
            org, kind, experiment["id"], example_rows.evaluation(rng, experiment, cases, by_label)
        )
    # The dataset grows after it was evaluated: the version that experiments pin is not its newest.
    for kind, label in (("experiment", "support/baseline"), ("dataset", "support/tickets")):
        insert(org, kind, by_label[label]["id"], resolve(example_rows.awkward_rows(kind), by_label))


def fill_logs(org: Any, by_label: ExampleObjects, rng: random.Random, rows: int) -> None:
    """Insert the logs of every project but the empty one, then what people did to them later."""
    logs = {project: example_rows.traces(rng, by_label, project, 8) for project in SMALL_PROJECTS}
    logs["planner"] = example_rows.traces(rng, by_label, "planner", rows // 4)
    logs["library"] = example_rows.traces(rng, by_label, "library", rows // 20)
    awkward = resolve(example_rows.awkward_rows("project_logs"), by_label)
    others = sum(len(inserted) for inserted in logs.values()) + len(awkward)
    logs["support"] = example_rows.traces(rng, by_label, "support", rows - others) + awkward
    for project, inserted in logs.items():
        insert(org, "project_logs", by_label[project]["id"], inserted)
    for later in example_rows.edits(rng, logs["support"]):
        insert(org, "project_logs", by_label["support"]["id"], later)


def fill_picked(org: Any, by_label: ExampleObjects) -> None:
    """Rows of a dataset that were copied from a trace and from an experiment."""
    for kind, label in (("project_logs", "support"), ("experiment", "support/baseline")):
        source_id = by_label[label]["id"]
        rows = example_rows.picked(org.rows(kind, source_id), kind, source_id)
        insert(org, "dataset", by_label["library/traced"]["id"], rows)
    change_picked(org, by_label)


def change_picked(org: Any, by_label: ExampleObjects) -> None:
    """Make the rows a former state: it names prompts, experiments and logs, and is evaluated.

    Of each transaction, some rows change later and others do not.
    """
    traced = by_label["library/traced"]
    cases = []
    for answer in (None, "edited", "changed"):
        made = [dict(row, expected=answer) for row in resolve(example_rows.MADE_FROM, by_label)]
        insert(org, "dataset", traced["id"], made if answer is None else made[1:])
        cases += org.rows("dataset", traced["id"])
        if answer == "edited":
            traced["picked"] = newest(org, traced["id"])
            insert(org, "dataset", traced["id"], [{"id": cases[0]["id"]}])
    create(org, by_label, objects.PICKED)
    origins = [example_rows.origin("dataset", traced["id"], case) for case in cases]
    rows = [{"id": f"replay {number}", "origin": made} for number, made in enumerate(origins)]
    insert(org, "experiment", by_label["library/replayed"]["id"], rows)
