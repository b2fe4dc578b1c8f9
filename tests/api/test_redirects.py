"""Redirects and signed URLs: what is followed, and where the key goes."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path
from typing import Dict, List

import pytest
import responses

from bt_migrate.api.http import origin, without_query
from bt_migrate.api.transport import CURSOR_HEADER
from bt_migrate.errors import (
    ApiError,
    NetworkError,
)
from tests.support.api_client import KEY, URL, client, outcome
from tests.support.loopback import Asked, Loopback, Reply, closed_port

ROWS = b'{"data":[{"id":"a"}]}'


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
@pytest.mark.parametrize("cursor_header", [{}, {CURSOR_HEADER: "abc+/="}])
def test_a_large_answer_is_fetched_from_its_other_origin_without_the_key(
    headers: Dict[str, str], cursor_header: Dict[str, str]
) -> None:
    with Loopback(
        [Reply(200, gzip.compress(ROWS), {"Content-Type": "application/octet-stream", **headers})]
    ) as files:
        target = f"{files.url}/bucket/result.json.gz?X-Signature=s%2Bs"
        with Loopback([Reply(303, b"", {"Location": target, **cursor_header})]) as server:
            answer = client(server.url, writable=False).query("select: *")
    (fetched,) = files.asked
    assert (answer.json, answer.headers[CURSOR_HEADER]) == (
        [{"id": "a"}],
        cursor_header.get(CURSOR_HEADER, ""),
    )
    assert (fetched.method, fetched.path, fetched.body) == (
        "GET",
        "/bucket/result.json.gz?X-Signature=s%2Bs",
        b"",
    )
    assert (
        "Authorization" in fetched.headers,
        KEY in str(fetched.headers),
        server.asked[0].headers["Authorization"],
    ) == (
        False,
        False,
        f"Bearer {KEY}",
    )


@pytest.mark.parametrize(
    ("status", "refused", "keys"),
    [
        # A signed URL of a store behind the same host: the store refuses a second authorization.
        (303, "with", [True, False]),
        # The API's own answer.
        (303, "without", [True, False, True]),
        (307, "without", [True, True]),
    ],
)
def test_a_redirect_within_the_origin_gets_the_key_only_if_it_needs_it(
    status: int, refused: str, keys: List[bool]
) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.path == "/btql":
            return Reply(status, b"", {"Location": "/results/1"})
        has_key = "with" if "Authorization" in asked.headers else "without"
        return Reply(400 if refused == "with" else 401, b"") if has_key == refused else rows

    rows = Reply(200, ROWS)
    with Loopback(answer) as server:
        assert client(server.url).query("select: *").json == [{"id": "a"}]
    asked = [("Authorization" in request.headers) for request in server.asked]
    assert asked == keys


@pytest.mark.parametrize(
    "second",
    [
        Reply(403, b"<Error>expired</Error>", {"Content-Type": "application/xml"}),
        Reply(200, b"\x1f\x8bcut"),
    ],
)
def test_a_signed_object_that_fails_is_requested_again(second: Reply) -> None:
    with Loopback([second, Reply(200, gzip.compress(ROWS))]) as files:
        redirect = Reply(303, b"", {"Location": f"{files.url}/x"})
        with Loopback([Reply(200, ROWS), redirect]) as server:
            api = client(server.url)
            api.query("proves the key")
            assert api.query("select: *").json == [{"id": "a"}]
    assert (len(server.asked), len(files.asked)) == (3, 2)


def test_an_object_that_redirects_again_is_not_followed() -> None:
    files = Loopback([Reply(302, b"", {"Location": "http://127.0.0.1:9/"})])
    with files, Loopback([Reply(303, b"", {"Location": f"{files.url}/x"})]) as server:
        error = outcome(lambda: client(server.url).query("select: *"))
    assert (type(error), error.status, len(files.asked)) == (ApiError, 302, 1)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("post", "/v1/dataset/1/insert", status) for status in (301, 302, 303, 307, 308)),
        ("post", "/v1/dataset", 307),
        ("put", "/v1/prompt", 308),
        ("patch", "/v1/project/1", 302),
    ],
)
def test_a_write_that_is_redirected_is_an_error_and_never_becomes_a_read(
    method: str, path: str, status: int
) -> None:
    def answer(asked: Asked) -> Reply:
        return (
            Reply(200, b'{"row_ids":["1"],"id":"x"}')
            if asked.method == "GET"
            else Reply(status, b"", {"Location": "/elsewhere"})
        )

    with Loopback(answer) as server:
        error = outcome(
            lambda: getattr(client(server.url), method)(path, {"events": [{"id": "1"}]})
        )
    assert (
        type(error),
        getattr(error, "status", None),
        [asked.method for asked in server.asked],
    ) == (
        ApiError,
        status,
        [method.upper()],
    )


def test_a_password_in_netrc_does_not_replace_the_key(home: Path) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    (home / ".netrc").chmod(0o600)
    files = Loopback([Reply(200, gzip.compress(ROWS))])
    with files, Loopback([Reply(303, b"", {"Location": f"{files.url}/query"})]) as server:
        api = client(server.url)
        api.query("select: *")
        api.store.open_download(f"{files.url}/download?sig=1").close()
        api.store.upload(f"{files.url}/upload?sig=2", {"Content-Type": "image/png"}, b"bytes")
    sent = [
        (asked.method, asked.path, asked.headers.get("Authorization"))
        for asked in [*server.asked, *files.asked]
    ]
    assert sent == [
        ("POST", "/btql", f"Bearer {KEY}"),
        ("GET", "/query", None),
        ("GET", "/download?sig=1", None),
        ("PUT", "/upload?sig=2", None),
    ]


@pytest.mark.parametrize("status", [302, 400, 403, 404, 500])
def test_a_refused_signed_url_is_reported_without_its_signature(status: int) -> None:
    with Loopback(
        [Reply(status, b"<Error>sig=secret</Error>", {"Location": "http://127.0.0.1:9/"})]
    ) as files:
        api = client(f"http://127.0.0.1:{closed_port()}")
        errors = [
            outcome(lambda: api.store.open_download(f"{files.url}/k?sig=secret")),
            outcome(lambda: api.store.upload(f"{files.url}/k?sig=secret", {}, b"x")),
        ]
    assert [str(error) for error in errors] == [
        f"destination: GET http://127.0.0.1/k was answered {status}: signed URL refused",
        f"destination: PUT http://127.0.0.1/k was answered {status}: upload refused",
    ]


@responses.activate
def test_a_signed_url_that_the_api_refuses_is_not_requested_again() -> None:
    responses.get(f"{URL}/attachment", json={"downloadUrl": "https://files.example.test/k"})
    responses.get("https://files.example.test/k")
    stop = threading.Event()
    api = client(attempts=1, stop=stop)
    api.store.retrying(
        lambda: api.store.open_download(api.get("/attachment")["downloadUrl"]).close()
    )
    responses.replace(responses.GET, f"{URL}/attachment", status=401)
    timer = threading.Timer(10, stop.set)  # so that it ends where it would go on
    timer.start()
    error = outcome(lambda: api.store.retrying(lambda: api.get("/attachment")))
    timer.cancel()
    assert (type(error), len(responses.calls)) == (NetworkError, 4)


def test_a_signed_url_without_answer_is_reported_without_its_signature() -> None:
    error = outcome(
        lambda: client().store.open_download(f"http://127.0.0.1:{closed_port()}/k?sig=secret")
    )
    assert (isinstance(error, NetworkError), "secret" in str(error)) == (True, False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/p?sig=1#x", "https://h/p"),
        ("https://user:word@h/p", "https://h/p"),
        ("http://h:8000/p/q?x", "http://h/p/q"),
    ],
)
def test_a_url_is_shown_without_query_and_user(url: str, expected: str) -> None:
    assert without_query(url) == expected


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("https://h/a", "https://h:443/b?c", True),
        ("http://h", "http://h:80", True),
        ("https://H/a", "https://h/a", True),
        ("https://h", "http://h", False),
        ("https://h", "https://h:8443", False),
        ("https://h", "https://h.evil.test", False),
        ("https://h", "https://h@evil.test", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(left: str, right: str, equal: bool) -> None:
    assert (origin(left) == origin(right)) is equal
