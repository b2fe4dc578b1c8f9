"""The one HTTP client: a `requests.Session` per request in flight, one throttle and one bound on requests in flight per organization.

Owns retries, redirects, decoding and errors. Knows nothing of what is moved. The source's client
can send GET and read queries only, by construction: `READS` is checked in the one place through which every request goes.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import threading
import time
import zlib
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple, TypeVar, Union
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError
from urllib3.util.retry import Retry

from bt_migrate.api.btql import MAX_LIMIT, rate_in
from bt_migrate.api.http import BearerAuth, NoAuth, origin, retry_after_s, shown
from bt_migrate.api.json_codec import decode, encode
from bt_migrate.api.throttle import MAX_BACKOFF_S, ConcurrencyLimit, Throttle
from bt_migrate.errors import ApiError, Interrupted, NetworkError

log = logging.getLogger("bt_migrate.api")

TIMEOUT_S = (
    10,
    120,
)  # connect, and between two bytes: a query may take 30 s on the server, an upload more
OUTAGE_DELAY_S = 0.1  # least pause in an outage, where tries have no bound
OUTAGE_S = 180  # how long a host that has answered before may be gone
RETRY_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
REDIRECTS = frozenset((301, 302, 303, 307, 308))
READ_BYTES = 1 << 20  # of a body at a time
RATE_LIMIT_TRIES = (
    100  # a 429 says when to come back: it is not a failure, so it has a bound of its own
)
CURSOR_HEADER = "x-bt-cursor"  # of a query whose answer is a redirect
REQUEST_ID_HEADERS = ("x-bt-internal-trace-id", "x-amzn-requestid", "x-request-id")

Json = Any
Sent = TypeVar("Sent")
Params = Union[Mapping[str, Any], List[Tuple[str, Any]], None]


@dataclass(frozen=True)
class Answer:
    """A finished 2xx answer: decoded body and the headers that are looked at."""

    json: Json
    headers: Mapping[str, str]
    size: int = 0  # bytes of the body
    plain: bool = False  # see json_text.decode


class Api:
    """One organization's API as this run uses it. Safe for many threads.

    `side` is "source" or "destination". Methods give back decoded JSON; they raise ApiError for an answer that retrying did not
    change, NetworkError for none, Interrupted once `stop` is set and a wait would be needed.
    """

    def __init__(
        self,
        side: str,
        url: str,
        key: str,
        *,
        writable: bool,
        attempts: int,
        delay_s: float,
        max_concurrent: int,
        queries_per_minute: int = 0,
        stop: Optional[threading.Event] = None,
    ) -> None:
        self.side = side
        self.url = url.rstrip("/")
        self.display_name = ""
        self.org_name = ""  # sent as org_name and x-bt-org-name once set
        self.org_id = ""
        self.writable = writable
        self.reads_groups = False  # a query over several objects gave rows of more than one
        self.shows_comments = False  # a row came with comments
        self.lacks_in = False  # a query with IN was refused
        self.page_rows = MAX_LIMIT  # rows that a page was answered with; fewer once the server found pages too large
        self.short_pages_end = (
            False  # a short page proved to be the end: the server does not cap pages
        )
        self.throttle = Throttle(queries_per_minute)
        self._clock_ahead_s = (
            0.0,
            0.0,
        )  # the server's clock minus ours, least and most, from the Date of its answers
        self._logs3_max_bytes: Optional[int] = None
        self.last_write_s = 0.0  # when a write was last sent or answered, by the server's clock
        self.requests_sent = 0
        self.retries = 0
        self._auth = BearerAuth(key)
        self._headers = requests.utils.default_headers()
        self._key = key
        self.attempts = attempts
        self._delay_s = delay_s
        self.places = ConcurrencyLimit(max_concurrent)
        self._stop = stop or threading.Event()
        self._idle: List[requests.Session] = []
        self._local = threading.local()
        self._counting = threading.Lock()
        self._proven = False  # a request was answered 2xx: the key is good
        self._store_proven = False  # a signed URL was answered

    def check(self) -> None:
        """Raises Interrupted once somebody asked for the end."""
        if self._stop.is_set():
            raise Interrupted("interrupted; what was in flight is finished and written down")

    # -- reading

    def get(self, path: str, params: Params = None) -> Json:
        return self._call("GET", path, params=params).json

    def query(
        self,
        text: str,
        *,
        retry_statuses: frozenset = RETRY_STATUSES,
        early: Optional[Callable[[bytes], None]] = None,
    ) -> Answer:
        """Run BTQL. `json` is the list of rows; `headers` holds the cursor under CURSOR_HEADER where more rows remain.

        `early` is called with the bytes of an answer that is about to be decoded.
        """
        # brainstore_realtime: rows that are not indexed yet are wanted too (the official SDK sends it with each fetch)
        body = encode({"query": text, "fmt": "json", "brainstore_realtime": True})
        answer = self._call("POST", "/btql", body=body, retry_statuses=retry_statuses, early=early)
        rows = answer.json.get("data") if isinstance(answer.json, dict) else None
        if not isinstance(rows, list):
            raise NetworkError(
                f"{self.side}: the answer to a query has no rows in it; is {self.url} a Braintrust API?"
            )
        cursor = answer.json.get("cursor") or answer.headers.get(CURSOR_HEADER) or ""
        return replace(answer, json=rows, headers={CURSOR_HEADER: cursor})

    def list(
        self, path: str, params: Optional[Dict[str, Any]] = None, *, page_size: int
    ) -> Iterator[dict]:
        """All objects of a list endpoint, newest first, page by page (`starting_after` the last id); at once for a page size of 0.

        A page that adds nothing ends it, so an endpoint that ignores paging ends too. A short page is the end, unless its size
        is a round number: then the server may cap pages, and it is asked once more.
        """
        seen: set = set()
        query = {**(params or {}), **({"limit": page_size} if page_size else {})}
        if self.org_name:
            query["org_name"] = self.org_name
        while True:
            answer = self.get(path, query)
            page = (
                answer
                if isinstance(answer, list)
                else answer.get("objects")
                if isinstance(answer, dict)
                else None
            )
            if not isinstance(page, list):
                raise NetworkError(
                    f"{self.side}: GET {path} gave no list; is {self.url} a Braintrust API?"
                )
            fresh = [one for one in page if isinstance(one, dict) and one.get("id") not in seen]
            yield from fresh
            seen.update(one.get("id") for one in fresh)
            if (
                not fresh
                or not page_size
                or (len(page) < page_size and not looks_capped(len(page)))
            ):
                return
            query["starting_after"] = fresh[-1].get("id")

    # -- writing (refused by `_call` for a client that may not)

    def post(self, path: str, body: Union[Mapping[str, Any], bytes]) -> Answer:
        return self._call("POST", path, body=body if isinstance(body, bytes) else encode(body))

    def put(self, path: str, body: Mapping[str, Any]) -> Json:
        return self._call("PUT", path, body=encode(body)).json

    def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        return self._call("PATCH", path, body=encode(body)).json

    def delete(self, path: str, body: Optional[Mapping[str, Any]] = None) -> Json:
        return self._call("DELETE", path, body=encode(body) if body else None).json

    def logs3_max_bytes(self) -> int:
        """The largest body of POST /logs3, above which it takes an upload; 0 where the server announces none."""
        if self._logs3_max_bytes is None:
            try:
                answer = self.get("/version")
            except ApiError:
                answer = None
            announced = answer.get("logs3_payload_max_bytes") if isinstance(answer, dict) else None
            self._logs3_max_bytes = announced if isinstance(announced, int) and announced > 0 else 0
        return self._logs3_max_bytes

    def server_seconds(self) -> float:
        """Now, by the server's clock: not later than it shows."""
        return time.time() + self._clock_ahead_s[0]

    def latest_seconds(self) -> float:
        """Now, by the server's clock: not earlier than it shows."""
        return time.time() + self._clock_ahead_s[1]

    def earliest_seconds(self) -> float:
        """Now by the earlier of the server's clock and ours: a mark that lies ahead of what the server writes would pass over it, and the
        Date of an answer may be the one of a gateway.
        """
        return min(self.server_seconds(), time.time())

    # -- signed URLs on other origins

    def with_signed(self, send: Callable[[], Sent]) -> Sent:
        """What asks for a signed URL and uses it, again while that may help: a URL expires, a transfer breaks off. A store that
        has answered before may be gone as long as the API may.
        """
        failures, started = 0, time.monotonic()
        while True:
            try:
                return send()
            except (ApiError, NetworkError) as error:
                if (
                    error.final
                    if isinstance(error, NetworkError)
                    else not error.path.startswith("http")
                ):
                    raise  # the API's own answer, or none: it was asked for again already
                outage = (
                    self._store_proven and self.attempts and time.monotonic() - started < OUTAGE_S
                )
                if failures >= self.attempts and not (outage and isinstance(error, NetworkError)):
                    raise
                failures += 1
                log.info("%s; trying again", error)
                self._wait(
                    min(
                        MAX_BACKOFF_S,
                        max(self._delay_s, OUTAGE_DELAY_S) * 2 ** min(failures - 1, 16),
                    )
                )

    def open_download(self, signed_url: str, content_type: str = "") -> requests.Response:
        """A streaming response of 200 for the signed URL of a file of this type; the caller closes it. Never carries the key."""
        response = self._foreign("GET", signed_url, stream=True)
        page = _is_page(response) and "html" not in content_type.lower()
        if response.status_code != 200 or page:
            response.close()
            raise self._store_error("GET", signed_url, response, "signed URL refused", page)
        return response

    def upload(self, signed_url: str, headers: Mapping[str, str], content: Any) -> None:
        """PUT a file-like object (with a length) to a signed URL. Never carries the key."""
        if not self.writable:
            raise PermissionError("the source cannot be written")
        azure = (
            {"x-ms-blob-type": "BlockBlob"}
            if "blob.core.windows.net" in (urlsplit(signed_url).hostname or "")
            else {}
        )
        self._send_foreign("PUT", signed_url, headers={**headers, **azure}, data=content)

    def send_signed(self, signed: Mapping[str, Any], content: bytes) -> None:
        """Send bytes as a signed answer says: PUT, or a form with the bytes as its file (method POST)."""
        if signed.get("method") != "POST":
            self.upload(signed["signedUrl"], signed.get("headers") or {}, content)
            return
        fields, files = signed.get("fields") or {}, {"file": content}
        self._send_foreign("POST", signed["signedUrl"], data=fields, files=files)

    def _send_foreign(self, method: str, signed_url: str, **arguments: Any) -> None:
        """A store answers what it took with nothing or with XML: a page is a proxy's, whatever its status, and nothing was stored."""
        response = self._foreign(method, signed_url, **arguments)
        page = _is_page(response)
        if response.status_code // 100 != 2 or page:
            raise self._store_error(method, signed_url, response, "upload refused", page)

    def _store_error(
        self, method: str, signed_url: str, response: requests.Response, why: str, page: bool
    ) -> ApiError:
        """A page says nothing of what the store holds."""
        text = "a page instead of the store's answer" if page else why
        error = ApiError(self.side, method, shown(signed_url), response.status_code, text)
        error.is_page = page
        return error

    # -- the one way out

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Params = None,
        body: Optional[bytes] = None,
        retry_statuses: frozenset = RETRY_STATUSES,
        early: Optional[Callable[[bytes], None]] = None,
    ) -> Answer:
        """Send until answered. Every request of this tool is safe to send twice: reads are, creating an existing natural key
        gives back the existing object, rows carry their ids and replace themselves, PATCH, PUT and DELETE say what is to be.
        """
        if not self.writable and not (method == "GET" or (method == "POST" and path == "/btql")):
            raise PermissionError(f"the source cannot be written: {method} {path} was not sent")
        failures, rate_limited, started = 0, 0, time.monotonic()
        while True:
            try:
                response, content = self._send(method, path, params, body)
                if early is not None and response.ok:
                    early(content)
                answer = self._read(response, content, method, path)
                self._proven = True
                return answer
            except ApiError as error:
                if error.status == 429 and self.attempts and rate_limited < RATE_LIMIT_TRIES:
                    rate_limited += 1
                    self._slow_down(error, rate_limited)
                    continue
                if failures >= self.attempts or not self._worth_retrying(error, retry_statuses):
                    if self._doubted(
                        error
                    ):  # not this object's trouble: the run stops and can be resumed
                        text = f"{error}; the key or a gateway fails since a moment ago: run the same command again"
                        raise NetworkError(text, final=True) from None
                    raise
                pause, problem = error.retry_after or 0.0, str(error)
            except (requests.RequestException, NetworkError) as error:
                # A host that answered before may be back in a moment: an outage has a bound in time, not in tries.
                outage = self._proven and self.attempts and time.monotonic() - started < OUTAGE_S
                if not outage and (failures >= self.attempts or _connect_failed(error)):
                    raise self._network_error(method, path, error, final=True) from None
                pause, problem = 0.0, type(error).__name__
            failures += 1
            self.retries += 1
            log.warning(
                "%s: %s %s: %s; trying again",
                self.side,
                method,
                path,
                problem,
                extra={"event": "retry", "side": self.side},
            )
            least = (
                self._delay_s if failures <= self.attempts else max(self._delay_s, OUTAGE_DELAY_S)
            )
            self._wait(max(pause, min(MAX_BACKOFF_S, least * 2 ** min(failures - 1, 16))))

    def _send(
        self, method: str, path: str, params: Params, body: Optional[bytes]
    ) -> Tuple[requests.Response, bytes]:
        """The answer and its whole body. The request is made before its turn comes; with `Session.request` it would be afterwards."""
        headers = {**self._headers, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.org_name and path == "/btql":
            headers["x-bt-org-name"] = self.org_name.encode("utf-8").decode("latin-1")
        request = requests.PreparedRequest()
        request.prepare(method, self.url + path, headers, params=params, data=body, auth=self._auth)
        with self._turn(query=path == "/btql"), self._session() as session:
            with self._counting:
                self.requests_sent += 1
            self._note_write(method, path)
            began_s = time.time()
            response = session.send(request, timeout=TIMEOUT_S, allow_redirects=False, stream=True)
            self._note_clock(response, began_s)
            # a write is never followed: 303 would make a read of it, and its 2xx would look like success
            if response.status_code in REDIRECTS and (method == "GET" or path == "/btql"):
                response = self._follow(session, response)
            content = b"".join(
                response.iter_content(READ_BYTES)
            )  # `content` alone would read it in pieces of 10 KB
            self._note_write(method, path)
        log.debug("%s %s %s -> %s", self.side, method, path, response.status_code)
        return response, content

    def _note_write(self, method: str, path: str) -> None:
        if method != "GET" and path != "/btql":
            self.last_write_s = self.server_seconds()

    @contextlib.contextmanager
    def _turn(self, *, query: bool) -> Iterator[None]:
        """A place among the requests in flight while the throttle is open: it may have been closed while waiting for the place."""
        while True:
            self._wait(self.throttle.wait_s(query=query))
            with self.places:
                if self.throttle.take(query=query):
                    yield
                    return

    def _follow(self, session: requests.Session, response: requests.Response) -> requests.Response:
        """Large answers come as 303 to a signed object: fetched at once (it expires), by GET, without the key unless it is the
        same origin.

        The cursor stands in the header of the first answer only.
        """
        response.close()
        cursor = response.headers.get(CURSOR_HEADER)
        target = urljoin(response.url, response.headers.get("Location", ""))
        if origin(target) == origin(self.url):
            followed = session.get(
                target, auth=self._auth, timeout=TIMEOUT_S, allow_redirects=False, stream=True
            )
        else:
            followed = self._foreign_session().get(
                target, auth=NoAuth(), timeout=TIMEOUT_S, allow_redirects=False, stream=True
            )
        if cursor:
            followed.headers[CURSOR_HEADER] = cursor
        return followed

    def _foreign(self, method: str, signed_url: str, **arguments: Any) -> requests.Response:
        try:  # not held up by a pause: it belongs to the request that gave the URL, which expires
            with self.places:
                response = self._foreign_session().request(
                    method,
                    signed_url,
                    auth=NoAuth(),
                    timeout=TIMEOUT_S,
                    allow_redirects=False,
                    **arguments,
                )
            self._store_proven = True
            return response
        except requests.RequestException as problem:
            raise self._network_error(method, shown(signed_url), problem) from None

    def _read(self, response: requests.Response, content: bytes, method: str, path: str) -> Answer:
        """The decoded answer.

        Raises the ApiError it is, or NetworkError for a 2xx that is no JSON (cut off, or a proxy's page).
        """
        if response.status_code // 100 != 2:
            request_id = next(
                (response.headers[h] for h in REQUEST_ID_HEADERS if h in response.headers), None
            )
            text = content[:2000].decode("utf-8", "replace").replace(self._key, "***")
            error = ApiError(self.side, method, path, response.status_code, text, request_id)
            error.retry_after = retry_after_s(response)
            error.is_page = _is_page(response) or content.lstrip()[:1] == b"<"
            raise error
        length = response.headers.get("Content-Length", "")
        if (
            length.isdigit()
            and int(length) != len(content)
            and "Content-Encoding" not in response.headers
        ):
            raise NetworkError(
                f"{self.side}: {method} {path} was cut off"
            )  # urllib3 before 2 does not tell
        if not content.strip():
            return Answer(None, response.headers, 0)
        try:
            if content[:2] == b"\x1f\x8b":  # gzip bytes without a Content-Encoding
                content = gzip.decompress(content)
            value, plain = decode(content)
            return Answer(value, response.headers, len(content), plain)
        except (ValueError, EOFError, OSError, zlib.error, RecursionError):
            raise NetworkError(
                f"{self.side}: {method} {path} was answered {response.status_code} with a body that is no JSON"
            ) from None

    def _note_clock(self, response: requests.Response, began_s: float) -> None:
        """A Date is a full second, of some moment since the request was begun: each answer narrows down how far ahead it is."""
        with contextlib.suppress(
            KeyError, TypeError, ValueError
        ):  # without a Date our own clock has to do
            second = parsedate_to_datetime(response.headers["Date"]).timestamp()
            new, known = (second - time.time(), second + 1 - began_s), self._clock_ahead_s
            both = max(new[0], known[0]), min(new[1], known[1])
            self._clock_ahead_s = (
                both if both[0] < both[1] else new
            )  # the first one, or a clock was set

    def _worth_retrying(self, error: ApiError, retry_statuses: frozenset) -> bool:
        return self._doubted(error) or error.status in retry_statuses

    def _doubted(self, error: ApiError) -> bool:
        """A key that was good a moment ago is refused, or a page stands where the API's own answer should: a loaded gateway does
        that for a minute or two (https://www.braintrust.dev/docs/kb/api-rate-limits-during-backfill-operations.md).
        """
        return self._proven and (error.status == 401 or (error.status == 403 and error.is_page))

    def _slow_down(self, error: ApiError, times: int) -> None:
        """A 429: all threads of this organization wait."""
        pause = self.throttle.refused(error.retry_after, rate_in(error.body), times, self._delay_s)
        log.info(
            "%s: rate limited, waiting %.1f s",
            self.side,
            pause,
            extra={"event": "rate_limited", "side": self.side},
        )

    def _network_error(
        self, method: str, path: str, problem: Exception, *, final: bool = False
    ) -> NetworkError:
        if isinstance(problem, NetworkError):
            return NetworkError(str(problem), final=final)
        return NetworkError(
            f"{self.side}: no answer from {origin(self.url)} for {method} {path} ({type(problem).__name__}); "
            "is the URL right, the host up, the proxy set?",
            final=final,
        )

    @contextlib.contextmanager
    def _session(self) -> Iterator[requests.Session]:
        """A session for the API's own origin, with nobody else meanwhile: requests does not promise that one can be shared. Any
        thread takes one that is idle, with its open connection. What the environment says of proxies and certificates is looked
        up once, not for each request.
        """
        try:
            session = self._idle.pop()
        except IndexError:
            session = self._new_session()
            environment = session.merge_environment_settings(self.url, {}, None, None, None)
            session.trust_env = False
            session.proxies, session.verify = environment["proxies"], environment["verify"]
        try:
            yield session
        finally:
            self._idle.append(session)

    def _foreign_session(self) -> requests.Session:
        """The thread's own session for other origins: what it streams may be read when the request is long over."""
        session: Optional[requests.Session] = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self._new_session()
        return session

    def _new_session(self) -> requests.Session:
        """urllib3's Retry tries to connect again (nothing was sent); statuses and broken answers are retried in `_call` alone."""
        session = requests.Session()
        retry = Retry(
            total=None,
            connect=self.attempts,
            read=False,
            redirect=False,
            status=0,
            other=0,
            backoff_factor=self._delay_s,
        )
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        return session

    def _wait(self, seconds: float) -> None:
        if seconds > 0 and self._stop.wait(seconds):
            raise Interrupted("interrupted while waiting")


def _connect_failed(error: Exception) -> bool:
    """No connection was made, after urllib3's own retries."""
    return (
        isinstance(error, requests.ConnectionError)
        and bool(error.args)
        and isinstance(error.args[0], MaxRetryError)
    )


def _is_page(response: requests.Response) -> bool:
    return "html" in response.headers.get("Content-Type", "").lower()


def looks_capped(count: int) -> bool:
    """Whether a short page might be a server's own cap on pages rather than the end: caps are round numbers."""
    return count % 5 == 0 < count or (count >= 16 and count & (count - 1) == 0)
