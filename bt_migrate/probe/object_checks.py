"""Checks of objects: how they are created, found, changed, listed and deleted."""

from __future__ import annotations

from typing import Any, Dict, List

from bt_migrate.errors import ApiError, MigrationError
from bt_migrate.probe.assumption import Seen, broken, differs, holds, holds_if
from bt_migrate.probe.scratch import Scratch, compact, is_refused, status_text

FOUND_HEADER = "x-bt-found-existing"
CODE = {
    "type": "code",
    "data": {
        "type": "inline",
        "runtime_context": {"runtime": "node", "version": "20"},
        "code": "export default () => 1;",
    },
}


def _prompt(content: str) -> Dict[str, Any]:
    return {"prompt": {"type": "completion", "content": content}}


def names_are_found(scratch: Scratch) -> Seen:
    first = scratch.create("dataset", name="found", description="old")
    answer = scratch.post(
        "/v1/dataset", project_id=scratch.project_id, name="found", description="new"
    )
    second = answer.json if isinstance(answer.json, dict) else {}
    same = second.get("id") == first["id"]
    is_unchanged = scratch.get("dataset", first["id"]).get("description") == "old"
    marked = FOUND_HEADER in {name.lower() for name in answer.headers}
    text = f"same id: {same}, unchanged: {is_unchanged}, header: {marked}"
    return holds_if(same and is_unchanged and marked, text)


def experiments_are_found(scratch: Scratch) -> Seen:
    first = scratch.create("experiment", name="found")
    answer = scratch.post("/v1/experiment", project_id=scratch.project_id, name="found")
    second = answer.json if isinstance(answer.json, dict) else {}
    if second.get("id") != first["id"]:
        return broken("an existing name gives another experiment")
    if FOUND_HEADER in {name.lower() for name in answer.headers}:
        return differs("the same experiment, with a header")
    return holds("the same experiment, without a header")


def slugs_are_versions(scratch: Scratch) -> Seen:
    fields = {"name": "p", "slug": "versions"}
    first = scratch.create("prompt", **fields, prompt_data=_prompt("old"))
    second = scratch.create("prompt", **fields, prompt_data=_prompt("new"))
    shown = scratch.get("prompt", first["id"])
    if second["id"] != first["id"]:
        return broken("an existing slug gives another prompt")
    if _content(shown) == "new":
        return holds("POST of an existing slug writes a version")
    if _content(shown) == "old":
        return differs("POST of an existing slug returns the old prompt")
    return broken(f"content after POST of an existing slug: {compact(_content(shown))}")


def _content(prompt: Any) -> Any:
    data = prompt.get("prompt_data") or {}
    return (data.get("prompt") or {}).get("content")


def versions_are_read(scratch: Scratch) -> Seen:
    made = scratch.create("prompt", name="p", slug="read", prompt_data=_prompt("old"))
    first = scratch.get("prompt", made["id"])
    scratch.api.patch(f"/v1/prompt/{made['id']}", {"prompt_data": _prompt("new")})
    old = scratch.get("prompt", made["id"], version=str(first.get("_xact_id")))
    new = scratch.get("prompt", made["id"])
    contents = [_content(old), _content(new)]
    moved = new.get("_xact_id") != first.get("_xact_id")
    return holds_if(contents == ["old", "new"] and moved, f"contents: {compact(contents)}")


def patch_keeps_other_fields(scratch: Scratch) -> Seen:
    made = scratch.create("dataset", name="patched", description="kept", metadata={"a": 1})
    scratch.api.patch(f"/v1/dataset/{made['id']}", {"metadata": {"b": 2}})
    shown = scratch.get("dataset", made["id"])
    if shown.get("description") != "kept":
        return broken("a field that was not sent is gone")
    metadata = shown.get("metadata")
    if metadata == {"a": 1, "b": 2}:
        return holds("other fields are kept, objects are merged")
    return differs(f"other fields are kept, metadata is {compact(metadata)}")


def put_keeps_the_id(scratch: Scratch) -> Seen:
    body = {"project_id": scratch.project_id, "name": "p", "slug": "put"}
    made = scratch.create("prompt", name="p", slug="put", description="gone")
    answer = scratch.api.put("/v1/prompt", {**body, "prompt_data": _prompt("new")})
    same = isinstance(answer, dict) and answer.get("id") == made["id"]
    shown = scratch.get("prompt", made["id"])
    replaced = (_content(shown), shown.get("description")) == ("new", None)
    return holds_if(same and replaced, f"same id: {same}, replaced: {replaced}")


def slugs_of_prompts_and_functions(scratch: Scratch) -> Seen:
    prompt = scratch.create("prompt", name="p", slug="shared", prompt_data=_prompt("p"))
    body = {"project_id": scratch.project_id, "name": "f", "slug": "shared", "function_data": CODE}
    try:
        function = scratch.api.post("/v1/function", body).json
    except ApiError as error:
        return differs(f"a function with the slug of a prompt is {status_text(error)}")
    if isinstance(function, dict) and function.get("id") == prompt["id"]:
        return holds("a prompt and a function share their slugs")
    return differs("a prompt and a function may have the same slug")


def views_and_their_user(scratch: Scratch) -> Seen:
    owner = {"object_type": "project", "object_id": scratch.project_id}
    body = {**owner, "view_type": "logs", "name": "probe"}
    made = scratch.api.post("/v1/view", body).json
    listed = list(scratch.api.list("/v1/view", dict(owner), page_size=100))
    ids = [view.get("id") for view in listed]
    if not isinstance(made, dict) or made.get("id") not in ids:
        return broken("a new view is not in the list of its owner")
    if made.get("user_id"):
        return holds("listed; a view without user_id belongs to its creator")
    return differs("listed; a view without user_id belongs to nobody")


def lists_page_by_last_id(scratch: Scratch) -> Seen:
    made = [scratch.create("experiment", name=f"page {number}")["id"] for number in range(5)]
    params = {"project_id": scratch.project_id}
    paged = _listed(scratch, params, 2)
    whole = [item.get("id") for item in scratch.api.list("/v1/experiment", params, page_size=0)]
    seen_once = len(paged) == len(set(paged))
    missing = len(set(made) - set(paged)), len(set(made) - set(whole))
    text = f"missing in pages of 2: {missing[0]}, in the whole list: {missing[1]}"
    return holds_if(missing == (0, 0) and seen_once, text)


def _listed(scratch: Scratch, params: Dict[str, Any], limit: int) -> List[Any]:
    """Returns all pages by `limit` and `starting_after`, without the checks of the client."""
    ids: List[Any] = []
    query: Dict[str, Any] = {**params, "limit": limit}
    for _ in range(20):
        answer = scratch.api.get("/v1/experiment", query)
        page = answer.get("objects") if isinstance(answer, dict) else answer
        if not page:
            return ids
        ids += [item.get("id") for item in page]
        query["starting_after"] = ids[-1]
    return ids


def unknown_fields_are_refused(scratch: Scratch) -> Seen:
    body = {"project_id": scratch.project_id, "name": "unknown", "no_such_field": 1}
    if is_refused(scratch, "/v1/dataset", body):
        return holds("an unknown field is refused")
    return differs("an unknown field is dropped")


def datasets_have_tags(scratch: Scratch) -> Seen:
    body = {"project_id": scratch.project_id, "name": "tags", "tags": ["x"]}
    if is_refused(scratch, "/v1/dataset", body):
        return differs("tags of a dataset are refused")
    return holds("tags of a dataset are accepted")


def unknown_references_are_refused(scratch: Scratch) -> Seen:
    body = {"project_id": scratch.project_id, "name": "dangling"}
    body["dataset_id"] = "00000000-0000-4000-8000-000000000000"
    if is_refused(scratch, "/v1/experiment", body):
        return holds("a reference to nothing is refused")
    return differs("a reference to nothing is accepted")


def deleted_objects_are_gone(scratch: Scratch) -> Seen:
    made = scratch.create("dataset", name="deleted")["id"]
    scratch.api.delete(f"/v1/dataset/{made}")
    params = {"project_id": scratch.project_id}
    listed = [item.get("id") for item in scratch.api.list("/v1/dataset", params, page_size=100)]
    second = scratch.create("dataset", name="deleted")["id"]
    good = made not in listed and second != made
    return holds_if(good, f"still listed: {made in listed}, its name is free: {second != made}")


def acls_are_listed(scratch: Scratch) -> Seen:
    try:
        answer = scratch.api.get("/v1/acl/list_org")
    except MigrationError as error:
        refused = status_text(error) if isinstance(error, ApiError) else "not answered"
        return differs(f"the list of ACLs is {refused}")
    if isinstance(answer, list):
        return holds("a bare list")
    inside = isinstance(answer, dict) and isinstance(answer.get("objects"), list)
    return differs("a list under `objects`") if inside else broken("no list")


def projects_are_listed(scratch: Scratch) -> Seen:
    answer = scratch.api.get("/v1/project", {"limit": 1})
    page = answer.get("objects") if isinstance(answer, dict) else answer
    if not isinstance(page, list):
        return broken("no list")
    return holds_if(len(page) <= 1, f"limit 1 gives {len(page)} project(s)")
