"""The organization that the self-check is tried on, and what a check of it says."""

from __future__ import annotations

from typing import Any, Dict, List

from bt_migrate.api.client import Api
from bt_migrate.api.organization import connect
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.probe.run import probe
from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg

KEY = "sk-probe-1f2e3d"
LIMITS = Limits(attempts=1, delay_s=0.01, max_concurrent=1)
# what an older data plane does otherwise, without harm
OLDER_DIFFERS = {
    "cursors_reach_every_row",
    "plain_rows_have_upserts_only",
    "slugs_are_versions",
    "experiments_are_found",
    "logs3_names_its_transaction",
    "views_and_their_user",
    "datasets_have_tags",
    "facets_are_shown",
    "groups_show_their_members",
    "limits_above_1000",
}


def api_of(sandbox: Sandbox, *, writable: bool = True) -> Api:
    api = Api(Endpoint("destination", sandbox.url, KEY), LIMITS, writable=writable)
    connect(api, "", "BT_DEST")
    return api


def states(sandbox: Sandbox) -> Dict[str, str]:
    results = probe(api_of(sandbox), api_of(sandbox), patience_s=0.6)
    return {assumption.name: seen.state for assumption, seen in results}


def contents(org: SandboxOrg) -> List[Any]:
    return [org.objects(kind) for kind in ("project", "dataset", "group", "role")]
