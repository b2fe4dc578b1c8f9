"""The objects inside the projects of the example: (kind, label, fields), in order of creation.

A label is `project/name`. In a string, «project/name» is a mark for the id of that object,
«project/name.field» for one of its fields, and «~name» for an object of the same project. Ids are
known only once an object is created, so fill.py replaces the marks; it also owns the order of the
tables; no code here beyond building tables.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Tuple

Spec = Tuple[str, str, Dict[str, Any]]

# fmt: off
# Names that people give, and names that break folders, shells and comma-separated options.
PROJECTS: List[Spec] = [
    ("project", "support", {"name": "Customer Support 🤖",
        "description": "The assistant on the help page"}),
    ("project", "library", {"name": "Shared Library",
                            "description": "Prompts and tools that other projects use"}),
    ("project", "planner", {"name": "旅行プランナー", "description": "日本語の旅程アシスタント"}),
    ("project", "arabic", {"name": "مساعد السفر", "description": "نسخة تجريبية"}),
    ("project", "quoted", {"name": "Evals, \"golden\" and 'silver'"}),
    ("project", "escape", {"name": "../../escape"}),
    ("project", "slashes", {"name": "a/b\\c"}),
    ("project", "device", {"name": "CON"}),
    ("project", "lower", {"name": "case"}),
    ("project", "upper", {"name": "Case"}),
    ("project", "padded", {"name": " padded "}),
    ("project", "long", {
        "name": ("Quarterly regression of the booking assistant " * 5)[:199] + "."}),
    ("project", "empty", {"name": "Nothing here yet"}),
]

# The same names and slugs in each of these projects: an id must be found inside the right one.
SMALL_PROJECTS = ("arabic", "quoted", "escape", "slashes", "device", "lower", "upper", "padded",
    "long")
COMMON_DATASETS: List[Spec] = [("dataset", "golden", {"name": "Golden set", "tags": ["golden"]})]
COMMON_DEFINITIONS: List[Spec] = [
    ("project_tag", "reviewed", {"name": "reviewed", "color": "#22C55E"}),
    ("prompt", "answer", {
        "name": "Answer", "slug": "answer",
        "prompt_data": {"prompt": {"type": "completion", "content": "Answer briefly: {{input}}"},
                        "options": {"model": "gpt-4o-mini", "params": {"temperature": 0}}}}),
    ("function", "exact", {
        "name": "Exact match", "slug": "exact-match", "function_type": "scorer",
        "function_data": {"type": "code", "data": {
            "type": "inline", "runtime_context": {"runtime": "node", "version": "20"},
            "code": "export default ({output, expected}) => (output === expected ? 1 : 0);\n"}}}),
]
COMMON_EXPERIMENTS: List[Spec] = [
    ("experiment", "smoke", {"name": "smoke", "dataset_id": "«~golden»",
        "dataset_version": "«~golden.head»",
                             "metadata": {"prompt": "«~answer»"}}),
]


def in_each(projects: Tuple[str, ...], specs: List[Spec]) -> List[Spec]:
    """The same objects in each of the projects."""
    return [(kind, project + "/" + name, fields) for project in projects for kind, name,
        fields in specs]


DATASETS: List[Spec] = [
    ("dataset", "support/tickets", {
        "name": "Tickets", "description": "Real questions, names changed",
        "tags": ["golden", "v3", "needs review, urgent"],
        "metadata": {"owner": "ana.silva@acme.example", "__schemas": {"input": {"type": "object"}},
                     "limit": 2 ** 53 + 1}}),
    ("dataset", "support/history", {"name": "History (all tickets)",
        "description": "Grows every night"}),
    ("dataset", "support/twins", {"name": "Tickets, reworded",
                                  "metadata": {"copied_from": "«support/tickets»"}}),
    ("dataset", "support/unused", {"name": "Empty for now", "description": ""}),
    ("dataset", "library/traced", {"name": "From traces",
                                   "description": "Rows that people picked from logs and "
                                       "experiments"}),
    ("dataset", "planner/trips", {"name": "旅程 ✈️", "tags": ["日本語"],
                                  "metadata": {"言語": "ja"}}),
    *in_each(SMALL_PROJECTS, COMMON_DATASETS),
]

PYTHON = {"runtime": "python", "version": "3.12"}
NODE = {"runtime": "node", "version": "20"}
LOOKUP_PY = '''def handler(reference: str, locale: str = "en") -> dict:
    """Find a booking; {{mustache}} means nothing here."""
    return {"reference": reference, "state": "confirmed"}
'''
TONE_TS = '''export default async function handler({ output }: { output: string }) {
  return /sorry/i.test(output) ? 1 : 0.5;
}
'''
STRING_ARGUMENT = {"type": "object", "properties": {"reference": {"type": "string"}},
                   "required": ["reference"]}


def inline(runtime: Dict[str, str], code: str) -> Dict[str, Any]:
    return {"type": "code", "data": {"type": "inline", "runtime_context": runtime, "code": code}}


def at(column: int, row: int, **node: Any) -> Dict[str, Any]:
    """Returns a graph node. Its position on the canvas is part of the schema."""
    return dict(node, position={"x": column * 240, "y": row * 120})


def edge(source: str, target: str, *, into: str = "input", purpose: str = "data") -> Dict[str, Any]:
    return {"source": {"node": source, "variable": "output"}, "target": {"node": target,
        "variable": into},
            "purpose": purpose}


TRIAGE_GRAPH = {
    "type": "graph",
    "nodes": {
        "in": at(0, 0, type="input", description="The customer's message"),
        "classify": at(1, 0, type="function", function={"function_id": "«support/classify»"}),
        "look up": at(2, 0, type="function", function={"function_id": "«support/lookup»",
                                                       "version": "«support/lookup._xact_id»"}),
        "policy": at(2, 1, type="function", function={"project_name": "Shared Library",
                                                      "slug": "search-policy"}),
        "recent": at(2, 2, type="btql", expr=(
            "select: * from: project_logs('«support»') filter: metadata.prompt.id = "
                "'«support/triage»'")),
        "limit": at(2, 3, type="literal", value={"max": 3, "unit": None}),
        "is refund": at(3, 0, type="gate", condition="output.intent = 'refund'"),
        "say": at(4, 0, type="prompt_template",
                  prompt={"type": "completion", "content": "Summarise {{facts}}"}),
        "join": at(5, 0, type="aggregator"),
        "out": at(6, 0, type="output"),
    },
    "edges": {
        "e1": edge("in", "classify"), "e2": edge("classify", "is refund", purpose="control"),
        "e3": edge("in", "look up"), "e4": edge("in", "policy"),
        "e5": edge("look up", "say", into="facts"), "e6": edge("policy", "join"),
        "e7": edge("say", "join", purpose="messages"), "e8": edge("join", "out"),
    },
}

# For code in a bundle, the API shows only the id of the bundle and a preview.
BUNDLE = {"type": "bundle", "runtime_context": NODE, "location": {"type": "function", "index": 0},
          "bundle_id": "5f0c6c2e-6c1f-4d0b-9c5e-0f4c3b1a2d10",
          "preview": "function refund(o){return o.amount<=100}"}
TOPIC_MAP = {"type": "topic_map", "source_facet": "Task", "embedding_model": "brain-embedding-1",
             "bundle_key": "topics/acme/7/bundle", "report_key": "topics/acme/7/report",
             "topic_names": {"0": "Refunds", "1": "Seats & luggage"},
             "source_facet_function": {"type": "function", "id": "«support/task_facet»",
                                       "version": "«support/task_facet._xact_id»"},
             "automation_btql_filter": "metadata.project = '«support»'",
             "btql_filter": "root_span_id != '«support»'"}

FUNCTIONS: List[Spec] = [
    ("function", "support/lookup", {
        "name": "lookup_booking", "slug": "lookup-booking", "function_type": "tool",
        "function_data": inline(PYTHON, LOOKUP_PY),
        "description": "Finds a booking by its reference", "tags": ["tool"],
        "function_schema": {"parameters": STRING_ARGUMENT, "returns": {"type": "object"}}}),
    ("function", "support/tone", {
        "name": "Tone of voice", "slug": "tone", "function_type": "scorer",
        "function_data": inline(NODE, TONE_TS)}),
    ("function", "support/refund", {
        "name": "refund (bundled)", "slug": "refund", "function_type": "tool",
        "function_data": {"type": "code", "data": BUNDLE}}),
    ("function", "library/policy", {
        "name": "search_policy", "slug": "search-policy", "function_type": "tool",
        "function_data": inline(PYTHON, "def handler(query):\n    return []\n")}),
    ("function", "support/flatten", {
        "name": "Flatten thread", "slug": "flatten-thread", "function_type": "preprocessor",
        "function_data": inline(NODE, "export default ({ input }) => JSON.stringify(input);\n")}),
    ("function", "support/classify", {
        "name": "Classify intent", "slug": "classify-intent", "function_type": "task",
        "function_data": {"type": "prompt"},
        "prompt_data": {"prompt": {"type": "chat",
                                   "messages": [{"role": "user",
                                       "content": "Intent of: {{{input}}}"}]},
                        "options": {"model": "gpt-4o-mini"},
                        "tool_functions": [{"type": "function", "id": "«support/lookup»"}]}}),
    ("function", "support/judge", {
        "name": "Helpfulness", "slug": "helpfulness", "function_type": "scorer",
        "function_data": {"type": "prompt"},
        "prompt_data": {
            "prompt": {"type": "chat", "messages": [
                {"role": "system", "content": "You grade answers."},
                {"role": "user", "content": "Q: {{input}}\nA: {{output}}\nHelpful?"}]},
            "options": {"model": "claude-sonnet-4-5", "params": {"max_tokens": 512,
                "temperature": 0.0}},
            "parser": {"type": "llm_classifier", "use_cot": True,
                       "choice_scores": {"Yes": 1, "Partly": 0.5, "No": 0}}}}),
    ("function", "support/triage_flow", {
        "name": "Triage flow", "slug": "triage-flow", "function_type": "task",
        "function_data": {"type": "graph", "nodes": {}, "edges": {}}}),
    # These two use each other as tools, so only a second pass can add the reference (KNOTS below).
    ("function", "support/ask_expert", {
        "name": "ask_expert", "slug": "ask-expert", "function_type": "tool",
        "function_data": {"type": "prompt"},
        "prompt_data": {"prompt": {"type": "completion", "content": "Ask the expert: {{question}}"},
                        "options": {"model": "gpt-4o"}}}),
    ("function", "support/ask_agent", {
        "name": "ask_agent", "slug": "ask-agent", "function_type": "tool",
        "function_data": {"type": "prompt"},
        "prompt_data": {"prompt": {"type": "completion", "content": "Hand back: {{question}}"},
                        "options": {"model": "gpt-4o"},
                        "tool_functions": [{"type": "function", "id": "«support/ask_expert»"}]}}),
    ("function", "support/task_facet", {
        "name": "Task", "slug": "task-facet", "function_type": "facet",
        "function_data": {"type": "facet", "prompt": "What does the customer want?",
                          "model": "brain-facet-latest", "no_match_pattern": "^NONE$",
                          "preprocessor": {"type": "function", "id": "«support/flatten»",
                                           "version": "«support/flatten._xact_id»"}}}),
    ("function", "support/mood_facet", {
        "name": "Sentiment", "slug": "sentiment-facet", "function_type": "facet",
        "function_data": {"type": "facet", "prompt": "How does the customer feel?",
                          "preprocessor": {"type": "global", "name": "thread",
                                           "function_type": "preprocessor"}}}),
    ("function", "support/topics", {
        "name": "Topics", "slug": "topics", "function_type": "classifier",
            "function_data": TOPIC_MAP}),
    ("function", "support/facets", {
        "name": "All facets", "slug": "all-facets", "function_type": "facet",
        "function_data": {"type": "batched_facet",
                          "preprocessor": {"type": "function", "id": "«support/flatten»"},
                          "facets": [{"name": "Task", "prompt": "What is wanted?"},
                                     {"name": "Issue", "prompt": "What is wrong?"}],
                          "topic_maps": {"Task": [{
                              "function_name": "Topics", "topic_map_id": "«support/topics»",
                              "topic_map_data": TOPIC_MAP}]}}}),
    ("function", "support/factuality", {
        "name": "Factuality", "slug": "factuality", "function_type": "scorer",
        "function_data": {"type": "global", "name": "Factuality", "function_type": "scorer",
                          "config": {"model": "gpt-4o"}}}),
    ("function", "planner/remote", {
        "name": "Nightly evaluation", "slug": "nightly", "function_type": "task",
        "function_data": {"type": "remote_eval", "endpoint": "https://evals.acme.example/dev",
                          "eval_name": "旅程", "parameters": {"days": 3},
                          "parameters_version": "1000000000000000001"}}),
    ("function", "support/settings", {
        "name": "Answer settings", "slug": "answer-settings", "function_type": "parameters",
        "function_data": {"type": "parameters", "data": {"tone": "warm", "max_words": 120,
            "greeting": None},
                          "__schema": {"type": "object", "properties": {
                              "tone": {"type": "string"}, "max_words": {"type": "number"}},
                                       "required": ["tone"], "additionalProperties": True}}}),
]

WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
WEATHER_TOOL = json.dumps([{"type": "function", "function": WEATHER}])
PROMPTS: List[Spec] = [
    ("prompt", "library/house_style", {
        "name": "House style", "slug": "house-style", "tags": ["shared"],
        "prompt_data": {"prompt": {"type": "completion", "content": (
                            "{{> style}}\nRewrite politely:\n{{#lines}}- {{.}}\n{{/lines}}")},
                        "options": {"model": "gpt-4o-mini", "params": {"temperature": 0.3,
                            "stop": ["\n\n"]}},
                        "template_format": "mustache"}}),
    ("prompt", "support/triage", {
        "name": "Triage", "slug": "triage", "description": "First contact", "tags": ["production",
            "v2"],
        "prompt_data": {
            "prompt": {"type": "chat", "tools": WEATHER_TOOL, "messages": [
                {"role": "system", "content": "You help travellers of Acme. Today is {{today}}."},
                {"role": "user", "content": [{"type": "text", "text": "{{question}}"},
                                             "«file:logo.reference»"]},
                {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "call_1", "type": "function",
                     "function": {"name": "weather", "arguments": "{}"}}]},
                {"role": "tool", "content": "sunny", "tool_call_id": "call_1"}]},
            "options": {"model": "gpt-4o", "position": "0|hzzzzz:", "params": {
                "temperature": 0.7, "max_tokens": 800, "response_format": {"type": "json_object"}}},
            "template_format": "mustache",
            "tool_functions": [
                {"type": "function", "id": "«support/lookup»",
                    "version": "«support/lookup._xact_id»"},
                {"type": "function", "id": "«library/policy»"},
                {"type": "slug", "project_id": "«library»", "slug": "search-policy"},
                {"type": "global", "name": "Factuality", "function_type": "scorer"}],
            "mcp": {"bookings": {"type": "id", "id": "«support/mcp»", "enabled_tools": ["find"]},
                    "maps": {"type": "url", "url": "https://maps.acme.example/mcp",
                        "is_disabled": True}},
            "origin": {"prompt_id": "«library/house_style»", "project_id": "«library»",
                       "prompt_version": "«library/house_style._xact_id»"}}}),
    ("prompt", "planner/itinerary", {
        "name": "旅程を作る", "slug": "itinerary",
        "prompt_data": {"prompt": {"type": "chat", "messages": [
                            {"role": "system",
                             "content": "あなたは旅の案内人です。\u2028{{city}} 🗾"}]},
                        "options": {"model": "gemini-2.5-flash",
                                    "params": {"maxOutputTokens": 1024, "topK": 40}},
                        "tool_functions": [{"type": "function", "id": "«library/policy»"}]}}),
]

DEFINITIONS: List[Spec] = [
    ("mcp_server", "support/mcp", {"name": "bookings", "url": "https://mcp.acme.example/sse",
                                   "description": "Internal"}),
    ("simulated_user", "support/impatient", {
        "name": "Impatient traveller", "goal": "A refund within a minute",
        "instructions": "Interrupt often. «support» is not to be named.",
        "voice_config": {"voice_id": "ada", "language": "en", "speaking_rate": 1.2}}),
    ("mcp_server", "planner/mcp", {"name": "bookings", "url": "https://mcp.acme.example/jp"}),
    ("project_tag", "support/urgent", {"name": "needs review, urgent", "color": "#EF4444",
                                       "description": "Look today"}),
    ("project_tag", "support/golden", {"name": "golden", "color": "#F59E0B"}),
    ("project_tag", "support/plain", {"name": "v3"}),
    ("project_tag", "planner/tag", {"name": "日本語", "color": "#3B82F6"}),
    ("span_iframe", "support/ticket", {"name": "Ticket",
        "url": "https://desk.acme.example/embed?id={{metadata.ticket}}",
                                       "post_message": True,
                                           "description": "The ticket in the help desk"}),
    ("span_iframe", "planner/map", {"name": "地図",
        "url": "https://maps.acme.example/?q={{output.city}}",
                                    "post_message": False}),
    *FUNCTIONS,
    *PROMPTS,
    *in_each(SMALL_PROJECTS, COMMON_DEFINITIONS),
]

# Patches that close cycles, and a new version of a tool whose first version stays pinned above.
KNOTS: List[Spec] = [
    ("function", "support/ask_expert", {"prompt_data": {"tool_functions": [
        {"type": "function", "id": "«support/ask_agent»",
            "version": "«support/ask_agent._xact_id»"}]}}),
    ("function", "support/triage_flow", {"function_data": TRIAGE_GRAPH}),
    ("function", "support/lookup", {"description": "Finds a booking by its reference, or by "
        "e-mail"}),
    ("prompt", "planner/itinerary", {"description": "三日間の旅程"}),
    # Five versions, of which rows, a tool and an environment pin the first.
    ("prompt", "support/triage", {"description": "First contact, shorter"}),
    ("prompt", "support/triage", {"prompt_data": {"options": {"params": {"top_p": 0.9}}}}),
    ("prompt", "support/triage", {"name": "Triage (friendly)"}),
    ("prompt", "support/triage", {"name": "Triage", "description": "First contact"}),
    ("function", "support/ask_agent", {"prompt_data": {"tool_functions": [
        {"type": "function", "id": "«support/ask_expert»"},
        {"type": "function", "id": "«support/triage»",
            "version": "«support/triage._xact_id»"}]}}),
]
# Environment -> the object whose first version it is assigned to.
ASSIGNMENTS: Dict[str, str] = {"production": "support/triage"}
# Environment -> the object whose latest version it is assigned to.
LATEST_ASSIGNMENTS: Dict[str, str] = {"dev": "support/triage"}

REPOSITORY = {"commit": "9f2c1e0d4b7a8c6f5e3d2b1a0998877665544332", "branch": "main", "dirty": True,
              "author_name": "Ana Silva", "author_email": "ana.silva@acme.example",
              "commit_message": "Ask before refunding", "commit_time": "2025-09-29T16:20:00Z",
              "git_diff": "--- a/agent.py\n+++ b/agent.py\n@@ -1 +1 @@\n-retry = 1\n+retry = 2\n"}

# The chain is baseline <- reworded <- tools <- bigger, in an order that is no order of time.
EXPERIMENTS: List[Spec] = [
    ("experiment", "support/reworded", {
        "name": "2025-10-02 reworded prompt", "dataset_id": "«support/tickets»",
        "dataset_version": "«support/tickets.head»", "repo_info": REPOSITORY, "tags": ["golden"],
        "metadata": {"model": "gpt-4o", "prompt": {"id": "«support/triage»"}}}),
    ("experiment", "support/bigger", {
        "name": "2025-10-06 bigger model", "dataset_id": "«support/tickets»",
        "description": "Is it worth the price?",
        "metadata": {"compared_with": ["«support/reworded»"],
                     "notes": "the dataset was «support/tickets» then", "budget": 1e-320}}),
    ("experiment", "support/baseline", {
        "name": "baseline", "dataset_id": "«support/tickets»",
            "parameters_id": "«support/settings»",
        "parameters_version": "«support/settings._xact_id»",
        "repo_info": dict(REPOSITORY, dirty=False, git_diff=None)}),
    ("experiment", "support/tools", {
        "name": "2025-10-04 with tools", "dataset_id": "«support/tickets»", "public": True,
        "internal_metadata": {"dataset_filter": {
            "op": "eq", "left": {"op": "ident", "name": ["metadata", "tier"]},
            "right": {"op": "literal", "value": "gold"}}}}),
    ("experiment", "support/unscored", {"name": "stopped at once", "metadata": {}}),
    ("experiment", "planner/elsewhere", {
        "name": "baseline", "dataset_id": "«planner/trips»",
        "dataset_version": "«planner/trips.reviewed»", "base_exp_id": "«support/baseline»",
        "tags": ["日本語"]}),
    *in_each(SMALL_PROJECTS, COMMON_EXPERIMENTS),
]

BASES: List[Spec] = [
    ("experiment", "support/reworded", {"base_exp_id": "«support/baseline»"}),
    ("experiment", "support/tools", {"base_exp_id": "«support/reworded»"}),
    ("experiment", "support/bigger", {"base_exp_id": "«support/tools»"}),
]

# A state of a dataset that was made from objects which are moved after the datasets.
PICKED: List[Spec] = [
    ("dataset_snapshot", "picked", {"dataset_id": "«library/traced»", "name": "as picked",
                                    "xact_id": "«library/traced.picked»"}),
    ("experiment", "library/replayed", {"name": "replayed", "dataset_id": "«library/traced»",
        "dataset_version": "«library/traced.picked»"}),
]

FROM_THREAD: Dict[str, Any] = {
    "prompt": {"type": "completion", "content": "{{input}}"}, "options": {"model": "gpt-4o"},
    "preprocessor": {"type": "function", "id": "«support/flatten»",
                     "version": "«support/flatten._xact_id»"}}
# Created after the data: an origin cannot be patched, and these name a prompt and an experiment.
LATE: List[Spec] = [
    # A playground, which no API lists or makes: only other objects name it.
    ("prompt_session", "support/playground", {"name": "Playground of Ana"}),
    ("function", "support/from_prompt", {
        "name": "Triage as a task", "slug": "triage-task", "function_type": "task",
        "function_data": {"type": "prompt"},
        "prompt_data": {"prompt": {"type": "completion", "content": "{{input}}"},
                        "options": {"model": "gpt-4o"}},
        "origin": {"object_type": "prompt", "object_id": "«support/triage»", "internal": False}}),
    ("function", "support/from_experiment", {
        "name": "Scorer of the baseline", "slug": "baseline-scorer", "function_type": "scorer",
        "function_data": inline(PYTHON, "def handler(output, expected):\n    return output == "
            "expected\n"),
        "origin": {"object_type": "experiment", "object_id": "«support/baseline»",
            "internal": True}}),
    ("function", "planner/other_ways", {
        "name": "Other ways to name a function", "slug": "other-ways", "function_type": "task",
        "function_data": {"type": "graph", "edges": {}, "nodes": {
            "by id": at(0, 0, type="function", function={
                "id": "«support/classify»", "version": "«support/classify._xact_id»"}),
            "by slug": at(0, 1, type="function", function={
                "project_id": "«library»", "slug": "search-policy"}),
            "of a playground": at(0, 2, type="function", function={
                "prompt_session_id": "«support/playground»",
                "prompt_session_function_id": "first"})}}}),
    ("function", "planner/thread", {
        "name": "Thread", "slug": "thread", "function_type": "task",
        "function_data": {"type": "prompt"}, "prompt_data": FROM_THREAD}),
    ("prompt", "planner/gathered", {"name": "Gathered", "slug": "gathered",
                                    "prompt_data": FROM_THREAD}),
    ("agent", "support/agent", {"name": "Night shift", "description": "Answers while we sleep",
                                "metadata": {"prompt": "«support/triage»"}}),
    ("dataset_snapshot", "frozen", {"dataset_id": "«support/tickets»", "name": "as evaluated",
                                    "xact_id": "«support/tickets.head»"}),
    *[("dataset_snapshot", state, {"dataset_id": "«planner/trips»", "name": state,
                                   "xact_id": f"«planner/trips.{state}»"})
      for state in ("drafted", "reviewed")],
    ("dataset_snapshot", "published", {"dataset_id": "«planner/trips»", "name": "published",
                                       "description": "三番目", "xact_id": "«planner/trips.head»"}),
]
