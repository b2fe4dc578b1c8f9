"""Texts of servers are shown and stored without what identifies a person or opens a door."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from bt_migrate.api.client import Api
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.errors import ApiError, without_secrets
from tests.support.loopback import Loopback, Reply

KEY = "sk-key+of/a=test"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "Missing read access to project id 1, or the project does not exist"
            " [user_email=ana@acme.example] [user_org=Acme, Inc.] [timestamp=1.5] [request_id=r]",
            "Missing read access to project id 1, or the project does not exist"
            " [timestamp=1.5] [request_id=r]",
        ),
        ("cut off [user_email=ana@ac", "cut off"),
        ("user ana.b+c@acme.example may not", "user *** may not"),
        ("user ana%40acme.example may not", "user *** may not"),
        ("Authorization: Bearer abc.def-123 refused", "Authorization: Bearer *** refused"),
        ("key sk-proj-0123456789abcdef", "key ***"),
        ("token eyJhbGciOi.eyJzdWIi.abc_-", "token ***"),
        (
            "see https://s3.example/b/k?X-Amz-Signature=abc&X-Amz-Date=1 now",
            "see https://s3.example/b/k?*** now",
        ),
        ("see https://user:word@h.example/p", "see https://h.example/p"),
        ("X-Amz-Signature=abcdef&x=1", "X-Amz-Signature=***&x=1"),
        ("plain: 'name' is missing at [1].field", "plain: 'name' is missing at [1].field"),
    ],
)
def test_secrets_and_addresses_are_removed_from_texts(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def echoes() -> list[str]:
    wrapped = [before + KEY + after for before in ("", "a", "ab") for after in ("", "z")]
    return [
        KEY,
        quote(KEY),
        quote(KEY, safe=""),
        KEY[::-1],
        KEY.encode().hex(),
        KEY.encode().hex().upper(),
        "".join(f"%{byte:02x}" for byte in KEY.encode()),
        "".join(f"%{byte:02X}" for byte in KEY.encode()),
        *(base64.b64encode(text.encode()).decode() for text in wrapped),
        *(base64.urlsafe_b64encode(text.encode()).decode() for text in wrapped),
    ]


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("echo", echoes())
def test_a_key_that_a_server_repeats_is_hidden_in_any_form(echo: str, status: int) -> None:
    body = f'{{"error": "refused {echo} here"}}'.encode()
    with Loopback([Reply(status, body)]) as server:
        api = Api(Endpoint("source", server.url, KEY), Limits(0, 0.0, 1), writable=False)
        with pytest.raises(ApiError) as raised:
            api.query("select: *")
    inner = echo[4:-4]
    assert (inner in str(raised.value), inner in raised.value.body) == (False, False)
