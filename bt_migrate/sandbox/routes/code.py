"""The upload of code bundles, as the official SDKs use it. Nobody can read a bundle."""

from __future__ import annotations

import bt_migrate.sandbox.data.clock as keys
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.errors import Refused
from bt_migrate.sandbox.routes.attachments import org_of
from bt_migrate.sandbox.routes.calls import Api, Call, json_answer

RUNTIMES = ("node", "python", "browser", "quickjs")


def upload(api: Api, call: Call) -> Answer:
    """POST /function/code: a signed URL for a new bundle, and the bundle's id."""
    body = call.fields()
    runtime = body.get("runtime_context")
    if not isinstance(runtime, dict) or runtime.get("runtime") not in RUNTIMES:
        raise Refused(400, f"runtime_context.runtime: expected one of {', '.join(RUNTIMES)}")
    if not isinstance(runtime.get("version"), str):
        raise Refused(400, "runtime_context.version: expected a text")
    place = (org_of(api, call, body.get("org_id")), keys.new_id())
    url = api.files.sign("PUT", call.org_name, place, "")
    return json_answer({"url": url, "bundleId": place[1]}, changed=True)
