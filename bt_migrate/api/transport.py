"""One HTTP exchange with the API: throttle, retries, redirects, decoding and errors.

Decides what is sent again and when. A `Request` says what is sent; what is moved is not known here.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import random
import threading
import time
import zlib
from dataclasses import replace
from typing import Dict, Iterator, Optional, Set, Tuple

import requests
from urllib3.exceptions import LocationValueError, MaxRetryError

from bt_migrate.api.btql import rate_in
from bt_migrate.api.concurrency import ConcurrencyLimit
from bt_migrate.api.connections import TIMEOUT_S, BearerAuth, Connections
from bt_migrate.api.http import (
    address_problem,
    forms_of_key,
    is_page,
    origin,
    redirect_target,
    retry_after_s,
    text_of_page,
)
from bt_migrate.api.jitter import jittered
from bt_migrate.api.json_codec import decode
from bt_migrate.api.request import Answer, Endpoint, Json, Limits, Request, Tries
from bt_migrate.api.server_clock import ServerClock
from bt_migrate.api.throttle import MAX_BACKOFF_S, Refused, Throttle
from bt_migrate.errors import (
    AnswerError,
    ApiError,
    Interrupted,
    NetworkError,
    RateLimitError,
    Route,
    UsageError,
    without_secrets,
)

log = logging.getLogger("bt_migrate.api")

# shortest pause in an outage, where the number of tries is not limited
OUTAGE_DELAY_S = 0.1
# Of a gateway whose servers are down: waited for as an outage. 504 is the end of a slow query.
OUTAGE_STATUSES = frozenset((502, 503))
# statuses of requests that were not carried out
NOT_CARRIED_OUT = frozenset((401, 403, 429))
# begins the path of each request about a file
FILES_PATH = "/attachment"
REDIRECTS = frozenset((301, 302, 303, 307, 308))
# in an error, before it is cut to MAX_BODY_CHARS
ERROR_BYTES = 2000
# of a query whose answer is a redirect
CURSOR_HEADER = "x-bt-cursor"
REQUEST_ID_HEADERS = ("x-bt-internal-trace-id", "x-amzn-requestid", "x-request-id")
GZIP_MAGIC = b"\x1f\x8b"

# texts of refused reads that succeed later (seen live)
PASSING_TEXTS = ("memory access out of bounds",)


class Transport:
    """Sends requests to one organization's API. Safe for many threads.

    `exchange` raises ApiError for an answer that retrying did not change, NetworkError for none,
    and Interrupted once `stop` is set and the request is a query or has to wait.
    """

    def __init__(self, endpoint: Endpoint, limits: Limits, stop: threading.Event) -> None:
        self.side = endpoint.side
        self.url = endpoint.url.rstrip("/")
        self.limits = limits
        self.throttle = Throttle(limits.queries_per_minute)
        self.in_flight = ConcurrencyLimit(limits.max_concurrent)
        self.clock = ServerClock()
        self.connections = Connections(
            self.url, connect_attempts=limits.attempts, delay_s=limits.delay_s
        )
        self.requests_sent = 0
        self.retries = 0
        # when a request that failed is tried again, by the monotonic clock
        self.next_try_s = 0.0
        # when a write was last sent or answered, by the server's clock
        self.last_write_s = 0.0
        self._random = random.random
        # never shown, whatever a server repeats
        self._secrets = forms_of_key(endpoint.key)
        self._auth = BearerAuth(endpoint.key)
        self._headers = requests.utils.default_headers()
        self._stop = stop
        self._counting = threading.Lock()
        # a request was answered 2xx: the key is good
        self._proven = False
        # routes that were refused without the API's JSON however often they were tried
        self._refused_routes: Set[str] = set()
        # the last answered request that is no query and not about a file
        self._last_read: Optional[Request] = None
        # requests about files fail while others are answered
        self._files_fail = False
        # when a query, and anything else, was last answered 2xx, by the monotonic clock
        self._answered_s: Dict[bool, float] = {}

    def check(self) -> None:
        """Raises Interrupted once `stop` is set."""
        if self._stop.is_set():
            raise Interrupted(
                "interrupted; requests in flight were finished and recorded;"
                " run the same command to continue"
            )

    def wait(self, seconds: float) -> None:
        """Wait. Raises Interrupted once `stop` is set."""
        if seconds > 0 and self._stop.wait(seconds):
            self.check()

    def backoff_s(self, failures: int) -> float:
        """Returns the pause after so many failures: it doubles with each."""
        least_s = self.limits.delay_s
        if failures > self.limits.attempts:
            least_s = max(least_s, OUTAGE_DELAY_S)
        pause_s = min(MAX_BACKOFF_S, least_s * 2.0 ** min(failures - 1, 16))
        return jittered(pause_s, self._random())

    def exchange(self, request: Request, org_name: str = "") -> Answer:
        """Sends the request until it is answered. `org_name` is named in a query's header."""
        try:
            prepared = self._prepare(request, org_name)
        except (requests.RequestException, ValueError) as error:
            raise self._unusable_url(error) from None
        tries = Tries()
        while True:
            try:
                response, content = self._send(request, prepared, tries)
                if request.on_body is not None and response.ok:
                    request.on_body(content)
                answer = self._decoded(request, response, content)
                self._proven = True
                if request.method == "GET" and not request.path.startswith(FILES_PATH):
                    self._last_read = request
                self._answered_s[request.is_query] = time.monotonic()
                self._note_answered(request, tries)
                return replace(answer, sent_again=True) if tries.failures else answer
            except ApiError as error:
                if error.status != 429:
                    self._note_answered(request, tries)
                if request.once and error.status not in NOT_CARRIED_OUT:
                    raise
                self._pause_after_refusal(request, error, tries)
            except (requests.RequestException, NetworkError) as error:
                if request.once and not _connect_failed(error):
                    raise self.final_error(str(request), error) from None
                self._pause_after_silence(request, error, tries)

    def _unusable_url(self, error: Exception) -> UsageError:
        return UsageError(
            f"{self.side}: {self.url} cannot be used as the API's URL ({type(error).__name__})"
        )

    # -- one try

    def _prepare(self, request: Request, org_name: str) -> requests.PreparedRequest:
        headers = {**self._headers, "Accept": "application/json"}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        if org_name and request.is_query:
            headers["x-bt-org-name"] = org_name.encode("utf-8").decode("latin-1")
        prepared = requests.PreparedRequest()
        prepared.prepare(
            request.method,
            self.url + request.path,
            headers,
            params=request.params,
            data=request.body,
            auth=self._auth,
        )
        return prepared

    def _send(
        self, request: Request, prepared: requests.PreparedRequest, tries: Tries
    ) -> Tuple[requests.Response, bytes]:
        """Returns the answer and its whole body."""
        with self._turn(query=request.is_query), self.connections.own() as session:
            with self._counting:
                self.requests_sent += 1
            self._note_write(request)
            tries.sent_s = time.monotonic()
            asked_s = time.time()
            response = self._sent(request, session, prepared)
            self.clock.note(response.headers.get("Date"), asked_s)
            # A write is never followed: 303 would make a read of it, whose 2xx looks like success.
            if response.status_code in REDIRECTS and request.is_read:
                response = self._follow(request, session, response)
            # whole: `Response.content` would read it in pieces of 10 KB
            content = b"".join(response.iter_content(None))
            self._note_write(request)
        log.debug("%s %s -> %s", self.side, request, response.status_code)
        return response, content

    def _sent(
        self, request: Request, session: requests.Session, prepared: requests.PreparedRequest
    ) -> requests.Response:
        try:
            return session.send(prepared, timeout=TIMEOUT_S, allow_redirects=False, stream=True)
        except (requests.exceptions.InvalidURL, LocationValueError) as error:
            raise self._unusable_url(error) from None
        # requests parses the Location of an answer, also where it does not follow it
        except ValueError as error:
            problem = f"its `Location` is no address ({type(error).__name__})"
            raise AnswerError(self._route(request), 303, problem) from None
        except requests.RequestException:
            raise
        # requests looks for the file of certificates before it connects
        except OSError as error:
            raise UsageError(
                f"{self.side}: the file of certificates cannot be read ({error});"
                " check REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE"
            ) from None

    def _note_write(self, request: Request) -> None:
        if not request.is_read:
            self.last_write_s = self.clock.earliest_s()

    @contextlib.contextmanager
    def _turn(self, *, query: bool) -> Iterator[None]:
        """A place among the requests in flight, while the throttle is open.

        The throttle is asked again inside: it may have closed while this thread waited for a place.
        Raises Interrupted for a query once `stop` is set: the next start asks it again.
        """
        while True:
            self.wait(self.throttle.wait_s(query=query))
            with self.in_flight:
                if query:
                    self.check()
                if self.throttle.take(query=query):
                    yield
                    return

    def _follow(
        self, request: Request, session: requests.Session, response: requests.Response
    ) -> requests.Response:
        """Fetches a large answer, which comes as 303 to a signed object, at once: it expires.

        The key is sent to the same origin only, after a 303 only if it is needed: stores refuse it.
        """
        response.close()
        cursor = response.headers.get(CURSOR_HEADER)
        target = redirect_target(response)
        if problem := address_problem(target):
            text = f"`Location` is no address of an answer: {problem}"
            raise self._answer_error(request, response, text)
        is_own = origin(target) == origin(self.url)
        needs_key = is_own and response.status_code != 303
        if not needs_key:
            followed = self.connections.request_elsewhere("GET", target, stream=True)
            needs_key = is_own and followed.status_code in (401, 403)
        if needs_key:
            followed = session.get(
                target, auth=self._auth, timeout=TIMEOUT_S, allow_redirects=False, stream=True
            )
        if cursor:
            followed.headers[CURSOR_HEADER] = cursor
        return followed

    def _decoded(self, request: Request, response: requests.Response, content: bytes) -> Answer:
        """Raises the ApiError that the answer is; NetworkError for 2xx without JSON in it."""
        if response.status_code // 100 != 2:
            raise self._api_error(request, response, content)
        if _is_cut_off(response, content):
            raise NetworkError(f"{self.side}: {request} was cut off")
        content = self._unpacked(request, content)
        value, plain = self._value_of(request, response, content)
        problem = request.check(value)
        if problem:
            raise self._answer_error(request, response, problem)
        return Answer(value, response.headers, len(content), plain)

    def _unpacked(self, request: Request, content: bytes) -> bytes:
        """Large answers are gzip bytes without a Content-Encoding."""
        if content[:2] != GZIP_MAGIC:
            return content
        try:
            return gzip.decompress(content)
        except (EOFError, OSError, zlib.error):
            raise NetworkError(f"{self.side}: {request} was cut off") from None

    def _value_of(
        self, request: Request, response: requests.Response, content: bytes
    ) -> Tuple[Json, bool]:
        """Raises NetworkError for a page, which is not the API's; AnswerError for other text."""
        if not content.strip():
            return None, False
        try:
            return decode(content)
        except (ValueError, RecursionError):
            if is_page(response) or content.lstrip()[:1] == b"<":
                raise NetworkError(
                    f"{self.side}: {request} was answered {response.status_code}"
                    " with a body that is not JSON"
                ) from None
            raise self._answer_error(request, response, "the body is no JSON") from None

    def _route(self, request: Request) -> Route:
        return Route(self.side, request.method, request.path)

    def _answer_error(
        self, request: Request, response: requests.Response, problem: str
    ) -> AnswerError:
        text = without_secrets(problem, self._secrets)
        return AnswerError(self._route(request), response.status_code, text)

    def _api_error(self, request: Request, response: requests.Response, content: bytes) -> ApiError:
        names = (name for name in REQUEST_ID_HEADERS if name in response.headers)
        request_id = next((response.headers[name] for name in names), None)
        text = without_secrets(content[:ERROR_BYTES].decode("utf-8", "replace"), self._secrets)
        is_html = is_page(response) or content.lstrip()[:1] == b"<"
        text = text_of_page(text) if is_html else text
        error = ApiError(self._route(request), response.status_code, text, request_id)
        error.retry_after = retry_after_s(response)
        error.is_json = content.lstrip()[:1] in (b"{", b"[")
        error.is_page = is_html
        error.lacks_route = f"Cannot {request.method} {request.path}" in error.body
        return error

    # -- after a try that failed: return once the next one may start, or raise

    def _pause_after_refusal(self, request: Request, error: ApiError, tries: Tries) -> None:
        self._refuse_long_wait(request, error)
        if error.status == 429 and self.limits.attempts:
            self._close_throttle(request, error, tries)
            return
        doubted = self._is_doubted(request, error)
        outage = self._is_outage(request, error, tries)
        retried = doubted or self._may_pass(request, error)
        has_tries = retried and tries.failures < self.limits.attempts
        if has_tries or (outage and tries.in_outage_time()):
            self._pause_before_retry(str(error), tries, least_s=error.retry_after or 0.0)
            return
        # a text that stays is this object's refusal; a page and a refused key are everybody's
        if not outage and not (doubted and (error.status == 401 or error.is_page)):
            if doubted:
                self._refused_routes.add(request.route)
            raise error
        # not the fault of a single object: the run stops and can be resumed
        text = "the key worked before, now it or a gateway fails: run the same command again"
        raise NetworkError(f"{error}; {text}", final=True) from None

    def _may_pass(self, request: Request, error: ApiError) -> bool:
        """Whether the same request may be answered next time."""
        if isinstance(error, AnswerError) or error.status in request.retry_statuses:
            return True
        return request.is_read and any(text in error.body for text in PASSING_TEXTS)

    def _refuse_long_wait(self, request: Request, error: ApiError) -> None:
        """Raises NetworkError for a pause that is longer than a run should hang."""
        asked_s, most_s = error.retry_after or 0.0, self.limits.max_retry_after_s
        if self.limits.attempts and asked_s > most_s:
            raise NetworkError(
                f"{self.side}: {request} was answered {error.status}: the server asks to wait"
                f" {_duration(asked_s)}, more than MIGRATION_MAX_RETRY_AFTER"
                f" ({_duration(most_s)}); run the same command again after that",
                final=True,
            ) from None

    def _pause_after_silence(self, request: Request, error: Exception, tries: Tries) -> None:
        """A host that answered before may be back soon: an outage has a bound in time."""
        outage = self._proven and self.limits.attempts and tries.in_outage_time()
        spent = tries.failures >= self.limits.attempts or _connect_failed(error)
        if spent and not outage:
            raise self.final_error(str(request), error) from None
        problem = f"{self.side}: {request}: no answer ({type(error).__name__})"
        self._pause_before_retry(problem, tries)

    def _pause_before_retry(self, problem: str, tries: Tries, *, least_s: float = 0.0) -> None:
        tries.failures += 1
        tries.failed_s = tries.failed_s or time.monotonic()
        self.retries += 1
        asked_s = jittered(least_s, self._random(), is_asked=True)
        pause_s = max(asked_s, self.backoff_s(tries.failures))
        log.warning(
            "%s (try %d of %d failed, next in %.0f s)",
            problem,
            tries.failures,
            max(self.limits.attempts, tries.failures) + 1,
            pause_s,
            extra={"event": "retry", "side": self.side},
        )
        self.next_try_s = max(self.next_try_s, time.monotonic() + pause_s)
        self.wait(pause_s)

    def _is_outage(self, request: Request, error: ApiError, tries: Tries) -> bool:
        """Whether a host that worked is down: no such request was answered since the first failure.

        While others are answered, only this object has a problem. Where a file is all that is left,
        the host is asked once more for what it answered before.
        """
        retried = error.status in OUTAGE_STATUSES & request.retry_statuses
        about_file = request.path.startswith(FILES_PATH)
        if not (retried and self._proven and self.limits.attempts):
            return False
        if about_file and not tries.in_outage_time() and self._answers_again():
            self._files_fail = True
        answered_s = self._answered_s.get(request.is_query, 0.0)
        return answered_s < tries.failed_s and not (about_file and self._files_fail)

    def _answers_again(self) -> bool:
        """Whether the host answers what it answered before. Sent once."""
        with contextlib.suppress(ApiError, NetworkError, requests.RequestException):
            read = self._last_read
            return read is not None and self._send(read, self._prepare(read, ""), Tries())[0].ok
        return False

    def _is_doubted(self, request: Request, error: ApiError) -> bool:
        """Whether a refusal of a key that worked before may be temporary.

        A gateway under load refuses good keys for a minute or two. Its answer is not the API's JSON
        (https://www.braintrust.dev/docs/kb/api-rate-limits-during-backfill-operations.md). If
        retries for one object of a route ended with a text again, the text counts for the others.
        """
        if not self._proven or error.status not in (401, 403):
            return False
        is_believed = error.is_json or (not error.is_page and request.route in self._refused_routes)
        return error.status == 401 or not is_believed

    def _close_throttle(self, request: Request, error: ApiError, tries: Tries) -> None:
        """Make all threads of this organization wait after a 429."""
        tries.rate_limited += 1
        refusal = Refused(
            retry_after=error.retry_after,
            rate=rate_in(error.body),
            times=tries.rate_limited,
            started_s=tries.sent_s,
            route=request.route,
        )
        pause_s = self.throttle.refused(refusal, self.limits.delay_s, query=request.is_query)
        if self.throttle.refusals_in_a_row(request.route) > self.limits.rate_limit_tries:
            text = f"{self.limits.rate_limit_tries} times in a row (MIGRATION_RATE_LIMIT_TRIES)"
            raise RateLimitError(f"{error}; {text}; run the same command again later", error)
        limit = self.throttle.refusal_text(request.route, self.limits.rate_limit_tries)
        log.info(
            "%s: rate limit; next request in %.0f s%s",
            self.side,
            pause_s,
            f" ({limit})" if limit else "",
            extra={"event": "rate_limited", "side": self.side, "seconds": pause_s},
        )

    def _note_answered(self, request: Request, tries: Tries) -> None:
        """Tell the throttle of an answer that is no 429."""
        self.throttle.answered(query=request.is_query, started_s=tries.sent_s, route=request.route)

    def final_error(self, request: str, problem: Exception) -> NetworkError:
        """Returns the error for a request that is not sent again."""
        if isinstance(problem, NetworkError):
            return NetworkError(str(problem), final=True)
        return NetworkError(
            f"{self.side}: no answer from {origin(self.url)} for {request}"
            f" ({type(problem).__name__}); is the URL right, the host up, the proxy set?",
            final=True,
        )


def _duration(seconds: float) -> str:
    """Returns a duration for a person: 90 s, 15 min, 24 h, 400 days."""
    for size, name in ((86400 * 3, "days"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[name]:,.0f} {name}"
    return f"{seconds:.0f} s"


def _connect_failed(error: Exception) -> bool:
    """Whether no connection was made, after urllib3's own retries."""
    return (
        isinstance(error, requests.ConnectionError)
        and bool(error.args)
        and isinstance(error.args[0], MaxRetryError)
    )


def _is_cut_off(response: requests.Response, content: bytes) -> bool:
    """Whether bytes are missing; urllib3 before 2 does not notice."""
    length = response.headers.get("Content-Length", "")
    encoded = "Content-Encoding" in response.headers
    return length.isdigit() and not encoded and int(length) != len(content)
