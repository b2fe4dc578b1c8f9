"""A faulty attachment store or address fails only its own attachments."""

from __future__ import annotations

import contextlib
import gzip
import json
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from bt_migrate.api import request, signed_urls
from bt_migrate.api.client import Api
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.attachments import copy
from bt_migrate.attachments.read import NotUploaded, attachment_chunks
from bt_migrate.errors import AnswerError, ApiError, NetworkError
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Fault
from bt_migrate.state.copied_attachments import CopiedAttachments
from tests.support.loopback import Asked, Loopback, Reply, closed_port
from tests.support.row_runs import World, small_rows, told, world

LOGS = "project_logs"
REFERENCE = {"type": "braintrust_attachment", "key": "k", "filename": "f", "content_type": "a/b"}
NO_ADDRESSES: List[Any] = [
    "http://[::1",
    "http://h:99999/x",
    5,
    True,
    {},
    [],
    "",
    "ftp://127.0.0.1/x",
    "file:///etc/hostname",
    "javascript:alert(1)",
    "http://",
    "/relative",
    "http://h h/x",
    "http://h\n/x",
    "http://h:0/x",
    "http://" + "a" * 300 + "/x",
]


def client(url: str, attempts: int = 1) -> Api:
    return Api(Endpoint("source", url, "sk-key"), Limits(attempts, 0.001, 2), writable=False)


def done(url: Any) -> Reply:
    return Reply(
        200, json.dumps({"downloadUrl": url, "status": {"upload_status": "done"}}).encode()
    )


@pytest.mark.parametrize("address", NO_ADDRESSES, ids=str)
def test_an_invalid_signed_url_is_an_error_of_that_attachment(address: Any) -> None:
    with Loopback([done(address)]) as server:
        api = client(server.url)
        with pytest.raises(ApiError):
            api.store.retrying(lambda: list(attachment_chunks(api, REFERENCE)))


@pytest.mark.parametrize(
    "target", ["file:///etc/hostname", "ftp://h/x", "http://[::1", "", "http://h:99999/"]
)
def test_a_redirect_to_a_missing_object_is_an_error_of_that_query(target: str) -> None:
    with Loopback(
        [Reply(303, b"", {"Location": target} if target else {})]
    ) as server, pytest.raises(AnswerError) as raised:
        client(server.url).query("select: *")
    assert "`Location` is no address" in str(raised.value)


def test_a_store_that_never_answers_is_waited_for_once() -> None:
    dead = f"http://127.0.0.1:{closed_port()}/x"
    with Loopback([done(dead)]) as server:
        api = client(server.url, attempts=2)
        for _ in range(3):
            with pytest.raises(Exception, match="no answer from http://127.0.0.1"):
                api.store.retrying(lambda: list(attachment_chunks(api, REFERENCE)))
    assert len(server.asked) == 3 + 1 + 1


def read(api: Api, key: str) -> bytes:
    reference = {**REFERENCE, "key": key}
    return api.store.retrying(lambda: b"".join(attachment_chunks(api, reference)))


@pytest.mark.parametrize(
    ("is_bad", "error", "waits"),
    [("", NetworkError, True), ("bad", ApiError, False)],
    ids=["the store", "one file"],
)
def test_5xx_of_a_store_that_worked_is_an_outage_unless_it_is_one_file(
    is_bad: str, error: Any, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signed_urls, "OUTAGE_S", 0.5)
    broken: List[str] = []

    def answer(asked: Asked) -> Reply:
        if asked.path.startswith("/attachment"):
            key = asked.path.partition("key=")[2].partition("&")[0]
            return done(f"http://{asked.headers['Host']}/bucket/{key}")
        is_down = any(part in asked.path for part in broken)
        return Reply(503, b"") if is_down else Reply(200, b"bytes", {"Content-Type": "a/b"})

    with Loopback(answer) as server:
        api = client(server.url, attempts=2)
        assert read(api, "good") == b"bytes"
        broken.append(f"/bucket/{is_bad}")
        started = time.monotonic()
        with pytest.raises(error) as raised:
            read(api, "bad")
        assert getattr(raised.value, "final", False) is waits
        assert not waits or time.monotonic() - started >= 0.5
        broken.clear()
        assert read(api, "bad") == b"bytes"


def test_a_file_is_stored_again_once_a_store_that_worked_is_back() -> None:
    with Loopback([Reply(), Reply(503), Reply(503), Reply(503), Reply()]) as server:
        api = Api(Endpoint("dest", server.url, "sk-key"), Limits(1, 0.001, 2), writable=True)
        for _ in range(2):
            api.store.retrying(lambda: api.store.upload(f"{server.url}/bucket/x", {}, b"bytes"))
    assert len(server.asked) == 5


def test_the_number_of_remembered_failed_attachments_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "MAX_NOT_COPIED", 2)
    with Loopback([Reply(404)]) as server, contextlib.closing(
        CopiedAttachments(tmp_path / "copied.sqlite3")
    ) as copied:
        api = client(server.url, attempts=0)
        api.org_id = "o"
        copier = copy.AttachmentCopier(api, api, copied, 1000)
        for key in ("a", "b", "c", "c", "a"):
            failed = copier.copy_into([{**REFERENCE, "key": key}])
            assert [(name, why.kind) for name, why in failed.items()] == [(key, copy.MISSING)]
    keys = [asked.path.partition("key=")[2].partition("&")[0] for asked in server.asked]
    # between them, the destination is asked for a copy
    assert [key for key in keys if len(key) == 1] == ["a", "b", "c", "a"]


def test_a_file_that_is_stored_with_a_content_encoding_is_copied_byte_for_byte() -> None:
    stored = gzip.compress(b"text " * 1000)

    def answer(asked: Asked) -> Reply:
        if asked.path.startswith("/attachment"):
            return done(f"http://{asked.headers['Host']}/bucket/f.gz")
        return Reply(200, stored, {"Content-Encoding": "gzip", "Content-Type": "text/plain"})

    with Loopback(answer) as server:
        api = client(server.url)
        assert b"".join(attachment_chunks(api, REFERENCE)) == stored
    assert server.asked[1].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("upload_status", "status", "is_lost"),
    [
        ("error", 200, True),
        ("uploading", 200, False),
        ("uploading", 404, True),
        ("uploading", 400, True),
        ("uploading", 503, False),
        ("other", 403, True),
    ],
)
def test_an_attachment_that_was_never_uploaded_is_a_loss_if_the_store_refuses_it(
    upload_status: str, status: int, is_lost: bool
) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.path.startswith("/bucket"):
            return Reply(status, b"")
        url = f"http://{asked.headers['Host']}/bucket/f"
        value = {"downloadUrl": url, "status": {"upload_status": upload_status}}
        return Reply(200, json.dumps(value).encode())

    with Loopback(answer) as server:
        api = client(server.url, attempts=0)
        with pytest.raises(NotUploaded) as raised:
            list(attachment_chunks(api, REFERENCE))
    assert raised.value.is_lost is is_lost


# -- whole runs


def fill(w: World) -> Dict[str, Any]:
    """Three attachments in three rows; returns the reference of the second."""
    references = [
        w.source.attach(b"bytes %d" % number, filename="f", content_type="a/b")
        for number in range(3)
    ]
    for number, reference in enumerate(references):
        w.source.insert(LOGS, w.project, small_rows(1, number, output=reference))
    return references[1]


def arrived(w: World) -> List[Optional[bytes]]:
    """The bytes behind each row's reference in the destination, None where there are none."""
    return [
        w.dest.attachment(row["output"]["key"])
        for row in w.dest.rows(LOGS, w.twin(LOGS, w.project))
    ]


WHOLE = [b"bytes 0", b"bytes 1", b"bytes 2"]
QUICK = {"MIGRATION_RETRY_DELAY": "0.01"}


def test_an_attachment_that_the_store_never_returns_fails_alone(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        key = fill(w)["key"]
        place = next(place for place in w.sandbox.files.attachments if place[1] == key)
        del place
        w.sandbox.faults.add(Fault("status", path=f"/bucket/.*{key}", times=None, status=500))
        assert (w.move(LOGS, **QUICK), told(w.root)) == (1, {"attachment_not_copied": 1})
        assert sorted(map(str, arrived(w))) == sorted(map(str, [WHOLE[0], None, WHOLE[2]]))
        w.sandbox.faults.clear()
        assert w.move(LOGS, **QUICK) == 0
        assert sorted(map(str, arrived(w))) == sorted(map(str, WHOLE))


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        None,
        5,
        "text",
        {"downloadUrl": 5},
        {"downloadUrl": "http://[::1", "status": {"upload_status": "done"}},
        {"status": {"upload_status": 5}},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.variants(2)
def test_a_malformed_answer_about_an_attachment_fails_it_alone(
    method: str, body: Any, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        key = fill(w)["key"]

        def refuse(asked: str, path: str, raw: bytes) -> Optional[Answer]:
            about = path.startswith("/attachment") and asked == method
            mine = key in path if method == "GET" else path == "/attachment"
            return Answer(200, json.dumps(body).encode()) if about and mine else None

        w.sandbox.refuse = refuse
        failed = 1 if method == "GET" else 3
        assert (w.move(LOGS, **QUICK), told(w.root)) == (1, {"attachment_not_copied": failed})
        w.sandbox.refuse = None
        assert w.move(LOGS, **QUICK) == 0
        assert sorted(map(str, arrived(w))) == sorted(map(str, WHOLE))


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.variants(1)
def test_a_file_that_is_never_taken_is_an_outage_once_and_then_fails_alone(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is left to do, so that nothing shows whether the store or the API is down."""
    monkeypatch.setattr(signed_urls, "OUTAGE_S", 0.3)
    monkeypatch.setattr(request, "OUTAGE_S", 0.3)
    with world(tmp_path) as w:
        key = copy.dest_attachment_key(w.dest.id, fill(w)["key"])
        if method == "PUT":
            fault = Fault("status", method="PUT", path=f"/bucket/.*{key}", times=None, status=503)
            w.sandbox.faults.add(fault)

        def refuse(asked: str, path: str, raw: bytes) -> Optional[Answer]:
            about = (asked, path) == ("POST", "/attachment") and key.encode() in raw
            return Answer(503, b"") if about and method == "POST" else None

        w.sandbox.refuse = refuse
        codes = [w.move(LOGS, MIGRATION_MAX_CONCURRENT="1", **QUICK) for _ in range(3)]
        assert (codes[1:], codes[0] in (1, 3)) == ([1, 1], True)
        assert told(w.root) == {"attachment_not_copied": 1}
        w.sandbox.faults.clear()
        w.sandbox.refuse = None
        assert w.move(LOGS, **QUICK) == 0
        assert sorted(map(str, arrived(w))) == sorted(map(str, WHOLE))
