"""Finds out which organization a key belongs to."""

from __future__ import annotations

from typing import Any, Dict, List

from bt_migrate.api.answers import list_of_objects, objects_of, text_at
from bt_migrate.api.client import Api
from bt_migrate.errors import NOT_THERE, ApiError, Route, UsageError


def connect(api: Api, wanted: str, setting: str) -> None:
    """Sets `org_id`, `display_name` and, where the key sees several organizations, `org_name`.

    `wanted` is the name that the setting `setting`_ORG holds, or "". Raises UsageError for a key
    that is refused, a name that it does not see, or several organizations and no name.
    """
    organizations = _organizations(api, setting)
    by_name = {str(organization.get("name")): organization for organization in organizations}
    names = ", ".join(sorted(by_name))
    if wanted and wanted not in by_name:
        raise UsageError(
            f"{setting}_ORG: the key does not see an organization {wanted!r};"
            f" it sees: {names or 'none'}"
        )
    if not organizations:
        raise UsageError(f"{api.side}: the key sees no organization; check {setting}_API_KEY")
    if len(organizations) > 1 and not wanted:
        raise UsageError(f"{setting}_ORG: the key sees several organizations, name one of: {names}")
    chosen = by_name[wanted] if wanted else organizations[0]
    api.org_id = chosen["id"]
    api.display_name = str(chosen.get("name") or chosen["id"])
    if len(organizations) > 1:
        api.org_name = wanted


# assumption: lists_page_by_last_id, ping_is_not_there
def _organizations(api: Api, setting: str) -> List[Dict[str, Any]]:
    try:
        return list(api.list("/v1/organization", page_size=0))
    except ApiError as error:
        if error.status in (401, 403):
            raise UsageError(
                f"{api.side}: {api.url} refuses the key ({error.status});"
                f" check {setting}_API_KEY and {setting}_URL"
            ) from None
        if error.status not in NOT_THERE:
            raise
        return _from_projects(api, setting)


def _from_projects(api: Api, setting: str) -> List[Dict[str, Any]]:
    """For servers without /v1/organization: any project names its organization."""
    try:
        answer = api.get("/v1/project", {"limit": 1}, check=list_of_objects)
    except ApiError as error:
        if error.status not in NOT_THERE:
            raise
        raise UsageError(
            f"{api.side}: {api.url} has no /v1/project ({error.status});"
            f" {setting}_URL is the API's URL alone, such as https://api.braintrust.dev"
        ) from None
    projects = objects_of(answer)
    if not projects:
        raise UsageError(
            f"{api.side}: cannot find out the organization of this key: {api.url} has no"
            f" /v1/organization, and no project that names it; check {setting}_URL, and create"
            " one project by hand if the organization is empty"
        )
    org_id = text_at(Route(api.side, "GET", "/v1/project"), projects[0], "org_id")
    return [{"id": org_id, "name": org_id}]
