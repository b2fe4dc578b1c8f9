"""HTTP terms that do not depend on what is asked: origins, URLs in messages, Retry-After, keys."""

from __future__ import annotations

import base64
import contextlib
import re
import threading
import time
from email.utils import parsedate_to_datetime
from html import unescape
from typing import List, Optional
from urllib.parse import quote, urljoin, urlsplit

import requests

# a shorter text is no key: replacing it would garble messages
MIN_KEY_CHARS = 6
# as seconds, 31 years; as a moment, in 2001
EPOCH_S = 1e9
DEFAULT_PORTS = {"https": 443, "http": 80}
_MARKUP = re.compile(r"<(script|style)\b.*?(</\1>|$)|<!--.*?-->|<[^>]*>", re.DOTALL | re.IGNORECASE)


def retry_after_s(response: requests.Response) -> Optional[float]:
    """Returns the seconds of the Retry-After header (a number or a date), None if unreadable."""
    value = response.headers.get("Retry-After", "")
    try:
        seconds = float(value)
        if seconds >= EPOCH_S:
            # some servers send a moment instead of a time: Unix seconds, or milliseconds
            unix_s = seconds / 1000 if seconds >= 1000 * EPOCH_S else seconds
            seconds = unix_s - _server_now_s(response)
        # neither NaN nor more than a thread can wait
        if seconds <= threading.TIMEOUT_MAX:
            return max(0.0, seconds)
    except ValueError:
        pass
    try:
        moment_s = parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError):
        return None
    return max(0.0, moment_s - _server_now_s(response))


def _server_now_s(response: requests.Response) -> float:
    """Returns the Date of the answer in Unix seconds, our own clock without one."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return parsedate_to_datetime(response.headers["Date"]).timestamp()
    return time.time()


def is_page(response: requests.Response) -> bool:
    """Whether the answer says that it is HTML."""
    return "html" in response.headers.get("Content-Type", "").lower()


def text_of_page(page: str) -> str:
    """What a person reads of an HTML page."""
    return "an HTML page: " + " ".join(unescape(_MARKUP.sub(" ", page)).split())


def origin(url: str) -> str:
    """Returns scheme, host and port of a URL. A key is sent only to its own origin."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or DEFAULT_PORTS.get(parts.scheme)}"


def without_query(url: str) -> str:
    """The URL as it may be shown: without query and user."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"


def redirect_target(response: requests.Response) -> str:
    """Returns the URL that a redirect names, or an invalid one if it names none."""
    location = response.headers.get("Location", "")
    try:
        return urljoin(response.url, location) if location else "none"
    except ValueError:
        return location


def address_problem(url: object) -> str:
    """Why a URL that a server handed out cannot be used, "" if it can."""
    if not isinstance(url, str):
        return f"the address is no text but {type(url).__name__}"
    try:
        parts = urlsplit(url)
        # raises ValueError for a port that is none
        port = parts.port
    except ValueError as error:
        return f"the address cannot be read ({error})"
    if parts.scheme not in DEFAULT_PORTS:
        return f"the address has the scheme {parts.scheme or 'none'!r}, not http or https"
    if not parts.hostname or port == 0:
        return "the address names no host"
    if any(char.isspace() or not char.isprintable() for char in url):
        return "the address holds characters that no address has"
    return ""


def forms_of_key(key: str) -> List[str]:
    """Returns the forms in which a text may repeat a key, longest first: as it is, reversed,
    URL-encoded, in hex, and in base64, alone or inside of a longer text.
    """
    if len(key) < MIN_KEY_CHARS:
        return []
    in_hex = key.encode().hex()
    forms = {key, quote(key), quote(key, safe=""), key[::-1], in_hex, in_hex.upper()}
    # each character URL-encoded, also those that need not be
    forms.update("".join(f"%{byte:{form}}" for byte in key.encode()) for form in ("02x", "02X"))
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        forms.add(encode(key.encode()).decode())
        # inside of a longer text there are three alignments; the characters at both ends mix with
        # the text around
        for before, mixed in ((0, 0), (1, 2), (2, 3)):
            encoded = encode(b"\0" * before + key.encode()).decode().rstrip("=")
            forms.add(encoded[mixed:-1])
    return sorted(forms, key=len, reverse=True)
