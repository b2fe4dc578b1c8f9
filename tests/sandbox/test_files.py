"""Attachments and overflows of the sandbox: signed URLs on an origin that gets no key."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Tuple

import pytest
import requests

from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg
from tests.support.sandbox_http import Http


def start_upload(http: Http, acme: SandboxOrg) -> Tuple[str, Dict[str, str]]:
    body = {"key": "k1", "filename": "a.bin", "content_type": "image/png", "org_id": acme.id}
    answer = http.post("/attachment", body).json()
    return answer["signedUrl"], answer["headers"]


def finish_upload(http: Http, acme: SandboxOrg, **status: str) -> int:
    return http.post(
        "/attachment/status", {"key": "k1", "org_id": acme.id, "status": status}
    ).status_code


def download(http: Http, acme: SandboxOrg, key: str) -> requests.Response:
    return http.get(
        "/attachment", key=key, filename="a.bin", content_type="image/png", org_id=acme.id
    )


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
def test_an_attachment_comes_back_as_it_was_sent(
    sandbox: Sandbox, http: Http, acme: SandboxOrg, size: int
) -> None:
    data = os.urandom(size)
    url, headers = start_upload(http, acme)
    assert url.startswith(sandbox.files_url)
    assert sandbox.files_url != sandbox.url
    assert download(http, acme, "k1").json()["status"] == {"upload_status": "uploading"}
    assert requests.put(url, data=data, headers=headers).status_code == 200
    assert finish_upload(http, acme, upload_status="done") == 200
    found = download(http, acme, "k1").json()
    assert found["status"] == {"upload_status": "done"}
    assert requests.get(found["downloadUrl"]).content == data == acme.attachment("k1")
    assert [(request.origin, request.org_name, request.status) for request in sandbox.requests][
        1:
    ] == [
        ("api", "acme", 200),
        ("files", "acme", 200),
        ("api", "acme", 200),
        ("api", "acme", 200),
        ("files", "acme", 200),
    ]
    assert sandbox.leaks() == []


def test_a_key_that_is_sent_to_the_files_origin_is_refused_and_recorded(
    sandbox: Sandbox, http: Http, acme: SandboxOrg
) -> None:
    url, headers = start_upload(http, acme)
    answer = requests.put(url, data=b"x", headers=dict(headers, Authorization="Bearer sk-acme"))
    assert answer.status_code == 400
    assert [(leak.method, leak.status) for leak in sandbox.leaks()] == [("PUT", 400)]
    assert "sk-acme" not in str(sandbox.requests)
    assert acme.attachment("k1") is None


def test_signed_urls_must_be_used_as_they_were_signed(
    sandbox: Sandbox, http: Http, acme: SandboxOrg
) -> None:
    url, headers = start_upload(http, acme)
    wrong_type = requests.put(url, data=b"x" * 2_000_000, headers={"Content-Type": "text/plain"})
    assert (wrong_type.status_code, "SignatureDoesNotMatch" in wrong_type.text) == (403, True)
    assert requests.get(url).status_code == 403
    assert requests.put(url.split("?")[0], data=b"x", headers=headers).status_code == 403
    sandbox.files.ttl_seconds = -1
    url, headers = start_upload(http, acme)
    assert requests.put(url, data=b"x", headers=headers).status_code == 403


def test_attachments_belong_to_one_organization(
    sandbox: Sandbox, http: Http, acme: SandboxOrg
) -> None:
    globex = sandbox.add_org("globex", api_key="sk-globex")
    reference = globex.attach(b"bytes", filename="a.png", content_type="image/png")
    assert reference == {
        "type": "braintrust_attachment",
        "filename": "a.png",
        "content_type": "image/png",
        "key": reference["key"],
    }
    assert globex.attachment(reference["key"]) == b"bytes"
    assert download(http, acme, reference["key"]).status_code == 404
    assert download(http, globex, reference["key"]).status_code == 403
    body = {"key": "k", "filename": "a", "content_type": "b", "org_id": globex.id}
    assert http.post("/attachment", body).status_code == 403
    assert http.post("/attachment", {"key": "k"}).status_code == 400


def test_the_status_of_an_upload_is_kept(http: Http, acme: SandboxOrg) -> None:
    start_upload(http, acme)
    assert finish_upload(http, acme, upload_status="error", error_message="disk full") == 200
    assert download(http, acme, "k1").json()["status"] == {
        "upload_status": "error",
        "error_message": "disk full",
    }
    assert finish_upload(http, acme, upload_status="perhaps") == 400
    url = download(http, acme, "k1").json()["downloadUrl"]
    assert requests.get(url).status_code == 404


def test_a_payload_that_is_too_large_goes_by_a_signed_url(
    sandbox: Sandbox, http: Http, acme: SandboxOrg
) -> None:
    assert http.get("/version").json() == {}
    sandbox.logs3_payload_max_bytes = sandbox.max_request_bytes = 1000
    assert http.get("/version").json() == {"logs3_payload_max_bytes": 1000}
    project = acme.create("project", {"name": "P"})["id"]
    row = {"id": "a", "project_id": project, "log_id": "g", "input": "x" * 5000}
    payload = json.dumps({"rows": [row], "api_version": 2}).encode()
    assert http.session.post(http.url + "/logs3", data=payload).status_code == 413

    asked = http.post(
        "/logs3/overflow",
        {"content_type": "application/json", "size_bytes": len(payload), "rows": []},
    )
    upload = asked.json()
    assert (
        requests.put(upload["signedUrl"], data=payload, headers=upload["headers"]).status_code
        == 200
    )

    def send(key: str, size: int) -> int:
        rows: Any = {"type": "logs3_overflow", "key": key, "size_bytes": size}
        return http.post("/logs3", {"rows": rows, "api_version": 2}).status_code

    assert send(upload["key"], len(payload) - 1) == 400
    assert send("unknown", len(payload)) == 400
    assert acme.rows("project_logs", project) == []
    assert send(upload["key"], len(payload)) == 200
    assert [row["input"] for row in acme.rows("project_logs", project)] == ["x" * 5000]
