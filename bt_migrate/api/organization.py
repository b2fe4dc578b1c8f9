"""organization."""

from __future__ import annotations

from typing import List

from bt_migrate.api.client import Api
from bt_migrate.errors import ApiError, UsageError

NOT_THERE = (404, 405, 501)  # what a server says of a path that it does not have


def connect(api: Api, wanted: str, setting: str) -> None:
    """Find out which organization the key belongs to: sets `org_id` and, where the key sees several, `org_name`.

    Raises UsageError for a key that is refused, a name that it does not see, or several organizations and no name.
    """
    try:
        organizations = list(api.list("/v1/organization", page_size=100))
    except ApiError as error:
        if error.status in (401, 403):
            raise UsageError(
                f"{api.side}: {api.url} refuses the key ({error.status}); check {setting}_API_KEY and {setting}_URL"
            ) from None
        if error.status not in NOT_THERE:
            raise
        organizations = _from_projects(api, setting)
    by_name = {one.get("name"): one for one in organizations}
    names = ", ".join(sorted(str(name) for name in by_name))
    if wanted and wanted not in by_name:
        raise UsageError(
            f"{setting}_ORG: the key does not see an organization {wanted!r}; it sees: {names or 'none'}"
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


def _from_projects(api: Api, setting: str) -> List[dict]:
    """For servers without /v1/organization: any project tells its organization."""
    try:
        answer = api.get("/v1/project", {"limit": 1})
    except ApiError as error:
        if error.status not in NOT_THERE:
            raise
        raise UsageError(
            f"{api.side}: {api.url} has no /v1/project ({error.status}); {setting}_URL is the API's URL alone, such as https://api.braintrust.dev"
        ) from None
    projects = answer.get("objects") if isinstance(answer, dict) else None
    if not projects:
        raise UsageError(
            f"{api.side}: {api.url} tells no organization for this key: it has no /v1/organization, and no project that names it; "
            f"check {setting}_URL, and make one project by hand where the organization is empty"
        )
    return [{"id": projects[0]["org_id"], "name": projects[0]["org_id"]}]
