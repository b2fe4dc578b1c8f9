"""Which answers about an attachment mean that it is lost, and which that the copy failed."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

import pytest

from bt_migrate.api.client import Api
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.attachments.copy import MISSING, NOT_COPIED, AttachmentCopier
from bt_migrate.state.copied_attachments import CopiedAttachments
from tests.support.loopback import Asked, Loopback, Reply, closed_port

REFERENCE = {"type": "braintrust_attachment", "key": "k", "filename": "f", "content_type": "a/b"}
PAGE = {"Content-Type": "text/html"}
NO_URL, DEAD = "", "dead"


def kind_of_failure(source: Loopback, folder: Path, attempts: int = 0) -> str:
    limits = Limits(attempts, 0.001, 2, rate_limit_tries=attempts)
    file = folder / "copied.sqlite3"
    # the destination has no copy
    with contextlib.closing(CopiedAttachments(file)) as copied, Loopback([Reply(404)]) as dest:
        sides = [
            Api(Endpoint(side, server.url, "sk-key"), limits, writable=False)
            for side, server in (("source", source), ("destination", dest))
        ]
        copier = AttachmentCopier(sides[0], sides[1], copied, 1000)
        (why,) = copier.copy_into([dict(REFERENCE)]).values()
        return why.kind


# The API refuses the key -----------------------------------------------------------------------

NOT_DONE = ("uploading", "error", "pending", "Aborted")


def told(status: str) -> Iterator[bytes]:
    """Refusals that name the upload status, as JSON, as JSON inside of JSON, and as text."""
    value = {"status": {"upload_status": status}}
    yield json.dumps(value).encode()
    yield json.dumps({"Code": "BadRequestError", "Message": json.dumps(value)}).encode()
    yield f"Attachment is not available: upload_status={status}".encode()
    yield f"Upload status is '{status}' [user_email=a@b.example]".encode()


REFUSALS: List[Tuple[int, bytes, str]] = [
    *((status, text, MISSING)
      for status in (400, 403, 404, 409, 410, 422, 451)
      for text in told("uploading")),
    *((400, text, MISSING) for word in NOT_DONE for text in told(word)),
    *((status, text, NOT_COPIED) for status in (400, 403, 422) for text in told("done")),
    # without the file, its status does not matter
    *((status, text, MISSING) for status in (404, 410) for text in told("done")),
    *((status, b"no", NOT_COPIED) for status in (400, 403, 409, 422)),
    *((status, b"no", MISSING) for status in (404, 410)),
    # come again: without another try, it is the last word
    *((status, text, MISSING) for status in (408, 425, 429) for text in told("uploading")),
    *((status, b"no", NOT_COPIED) for status in (408, 425, 429)),
    # a failure of the server
    *((status, text, NOT_COPIED) for status in (500, 504) for text in told("uploading")),
]  # fmt: skip


@pytest.mark.parametrize(("status", "text", "kind"), REFUSALS)
def test_a_refused_key_is_lost_if_its_upload_was_not_done(
    status: int, text: bytes, kind: str, tmp_path: Path
) -> None:
    with Loopback([Reply(status, text, {"Content-Type": "application/json"})]) as source:
        assert kind_of_failure(source, tmp_path) == kind


def test_an_html_page_does_not_prove_that_an_upload_is_lost(tmp_path: Path) -> None:
    page = Reply(404, b"<html>no route for upload_status=uploading</html>", PAGE)
    with Loopback([page]) as source:
        assert kind_of_failure(source, tmp_path) == NOT_COPIED


@pytest.mark.parametrize("status", [408, 425, 429])
def test_a_key_that_is_to_be_asked_for_again_is_lost_once_all_tries_are_used(
    status: int, tmp_path: Path
) -> None:
    refusal = Reply(status, b'{"upload_status": "uploading"}', {"Retry-After": "0"})
    with Loopback([refusal]) as source:
        assert kind_of_failure(source, tmp_path, attempts=2) == MISSING
        assert len(source.asked) == 3


# The store refuses the file --------------------------------------------------------------------

COME_AGAIN = (408, 425, 429)
REFUSED = (400, 401, 403, 404, 405, 409, 410, 416, 422, 451, *COME_AGAIN)
NO_REFUSAL = (204, 206, 304, 500, 501, 503)

ANSWERS: List[Tuple[str, Reply, str]] = [
    *((word, Reply(status, b""), MISSING) for word in NOT_DONE for status in REFUSED),
    *(("uploading", Reply(status, b""), NOT_COPIED) for status in (*NO_REFUSAL, 200)),
    ("uploading", Reply(404, b"<html>", PAGE), NOT_COPIED),
    ("uploading", Reply(0), NOT_COPIED),
    # the upload failed for good
    *(("error", Reply(status, b""), MISSING) for status in (*NO_REFUSAL, 200)),
    # the upload was done: only a file that is gone is lost
    *(("done", Reply(status, b""), MISSING) for status in (404, 410)),
    *(("done", Reply(status, b""), NOT_COPIED)
      for status in (*REFUSED, *NO_REFUSAL) if status not in (404, 410)),
    ("done", Reply(404, b"<html>", PAGE), NOT_COPIED),
    ("done", Reply(0), NOT_COPIED),
]  # fmt: skip


@pytest.mark.parametrize(("upload_status", "reply", "kind"), ANSWERS)
def test_a_refused_file_is_lost_if_its_upload_was_not_done(
    upload_status: str, reply: Reply, kind: str, tmp_path: Path
) -> None:
    with Loopback(lambda asked: _signed(asked, upload_status) or reply) as source:
        assert kind_of_failure(source, tmp_path) == kind


@pytest.mark.parametrize("status", COME_AGAIN)
@pytest.mark.parametrize(
    ("later", "kind"), [(404, MISSING), (200, NOT_COPIED), (503, NOT_COPIED), (0, NOT_COPIED)]
)
def test_a_file_that_is_to_be_asked_for_again_is_asked_for_again(
    status: int, later: int, kind: str, tmp_path: Path
) -> None:
    replies = [Reply(status, b""), Reply(status, b""), Reply(later, b"")]
    with Loopback(lambda asked: _signed(asked, "uploading") or replies.pop(0)) as source:
        assert kind_of_failure(source, tmp_path, attempts=2) == kind
        assert replies == []


@pytest.mark.parametrize("url", [None, NO_URL, 5, "http://[::1", "/relative", DEAD])
@pytest.mark.parametrize(("upload_status", "kind"), [("uploading", NOT_COPIED), ("error", MISSING)])
def test_a_file_without_a_usable_address_is_lost_only_if_its_upload_failed(
    upload_status: str, kind: str, url: object, tmp_path: Path
) -> None:
    given = f"http://127.0.0.1:{closed_port()}/x" if url == DEAD else url
    body = {"status": {"upload_status": upload_status}, "downloadUrl": given}
    with Loopback([Reply(200, json.dumps(body).encode())]) as source:
        assert kind_of_failure(source, tmp_path) == kind


def _signed(asked: Asked, upload_status: str) -> Optional[Reply]:
    """The API's answer; None for a request to the store."""
    if asked.path.startswith("/bucket"):
        return None
    url = f"http://{asked.headers['Host']}/bucket/f"
    value = {"downloadUrl": url, "status": {"upload_status": upload_status}}
    return Reply(200, json.dumps(value).encode())
