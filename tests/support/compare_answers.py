"""Compares an answer of the sandbox with the recorded one: status, headers, shape and relations."""

from __future__ import annotations

import base64
import re
from typing import Any, List

import requests

from bt_migrate.sandbox.data.clock import micros
from tests.support.exchanges import (
    HEADERS,
    MAX_SECONDS_APART,
    QUERY_UNKNOWN,
    ROW_KEY,
    TRANSACTION,
    UUID,
    Exchange,
    Json,
    Pairing,
    jsonl,
)
from tests.support.replay import World


def differences(world: World, exchange: Exchange, answer: requests.Response) -> List[str]:
    """What is not as recorded: status, headers, keys, types, values, relations of ids and times."""
    if answer.status_code != exchange.status:
        return ["status %d: %s" % (answer.status_code, answer.text[:300])]
    found = []
    for name in HEADERS:
        if (name in exchange.headers) != (name in answer.headers):
            found.append(f"header {name}: {answer.headers.get(name)}")
        elif name == "x-bt-cursor" and name in exchange.headers:
            world.pairing.learn(exchange.headers[name], answer.headers[name])
    if answer.headers["Content-Type"] != exchange.headers["content-type"]:
        found.append("content-type: " + answer.headers["Content-Type"])
    found += _cursor_problems(exchange, answer)
    found += _compared(world, exchange, answer)
    return found


def _compared(world: World, exchange: Exchange, answer: requests.Response) -> List[str]:
    comparison = Comparison(world.pairing, exchange)
    if exchange.is_jsonl:
        comparison.compare(jsonl(exchange.response), jsonl(answer.text), "")
    elif "json" in exchange.headers["content-type"]:
        comparison.compare(exchange.response, answer.json(), "")
    else:
        comparison.compare_text(exchange.response, answer.text)
    return comparison.problems


def _cursor_problems(exchange: Exchange, answer: requests.Response) -> List[str]:
    """A cursor is the unpadded base64 of the 8 bytes of the last row's key, in body and header."""
    problems = []
    theirs = [] if exchange.cut else exchange.rows()
    for rows, headers, who in (
        (theirs, exchange.headers, "recorded"),
        (_rows_of(exchange, answer), answer.headers, "ours"),
    ):
        cursor = headers.get("x-bt-cursor")
        if cursor is None or not rows or "_pagination_key" not in rows[-1]:
            continue
        raw = int(rows[-1]["_pagination_key"][1:]).to_bytes(8, "big")
        if cursor != base64.b64encode(raw).decode().rstrip("="):
            problems.append(f"{who} cursor {cursor} is not the last key")
    return problems


def _rows_of(exchange: Exchange, answer: requests.Response) -> List[Json]:
    if exchange.is_jsonl:
        return jsonl(answer.text)
    if "json" not in answer.headers["Content-Type"]:
        return []
    value = answer.json()
    return list(value.get("data") or value.get("events") or []) if isinstance(value, dict) else []


# Fields that the service has added since some of the recordings were made.
ADDED_LATER = frozenset(
    # rows of 2026
    "audit_data classifications comments facets "
    # answers of queries of 2026
    "warnings "
    # projects, datasets and experiments of 2026
    "description url_slug tags internal_metadata parameters_id parameters_version".split()
)
# Values that are not compared: addresses, texts, trace ids, settings of the organization, and the
# newest transaction of an object of which not all rows are shown.
FREE_VALUES = frozenset(
    "read_bytes schema message InternalTraceId api_url proxy_url realtime_url git_metadata "
    "is_universal_api minimum_xact_id actual_xact_id last_processed_xact_id "
    "last_considered_xact_id".split()
)


class Comparison:
    """Compares one answer; `problems` names what is not as recorded."""

    def __init__(self, pairing: Pairing, exchange: Exchange) -> None:
        self.pairing = pairing
        self.exchange = exchange
        self.problems: List[str] = []

    def compare(self, recorded: Any, ours: Any, path: str) -> None:
        if isinstance(recorded, dict) and isinstance(ours, dict):
            self._compare_objects(recorded, ours, path)
        elif isinstance(recorded, list) and isinstance(ours, list):
            self._compare_lists(recorded, ours, path)
        elif isinstance(recorded, str) and isinstance(ours, str):
            self._compare_texts(recorded, ours, path)
        elif type(recorded) is not type(ours) or recorded != ours:
            self._differs(path, recorded, ours)

    def _compare_objects(self, recorded: Json, ours: Json, path: str) -> None:
        missing = sorted(set(recorded) - set(ours))
        added = sorted(set(ours) - set(recorded) - ADDED_LATER)
        if missing or added:
            self.problems.append("{}: misses {}, has {}".format(path or "/", missing, added))
        for name in set(recorded) & set(ours):
            if name not in FREE_VALUES:
                self.compare(recorded[name], ours[name], path + "/" + name)

    def _compare_lists(self, recorded: List[Any], ours: List[Any], path: str) -> None:
        if path == "/objects" and self.exchange.session == QUERY_UNKNOWN:
            shown = [self.pairing.translated(value["id"]) for value in recorded]
            ours = [value for value in ours if value["id"] in shown]
        if len(ours) < len(recorded) or (len(ours) > len(recorded) and not self.exchange.cut):
            self.problems.append("%s: %d items, not %d" % (path, len(ours), len(recorded)))
        for number, (left, right) in enumerate(zip(recorded, ours)):
            self.compare(left, right, "%s/%d" % (path, number))

    def _compare_texts(self, recorded: str, ours: str, path: str) -> None:
        name = path.rsplit("/", 1)[-1]
        if name == "user_id":  # the caller of a session is not the same person everywhere
            self._equal(
                str(UUID.fullmatch(recorded) is None), str(UUID.fullmatch(ours) is None), path
            )
        elif any(pattern.fullmatch(recorded) for pattern in (UUID, TRANSACTION, ROW_KEY)):
            same_form = any(
                pattern.fullmatch(recorded) and pattern.fullmatch(ours)
                for pattern in (UUID, TRANSACTION, ROW_KEY)
            )
            if not same_form or not self.pairing.learn(recorded, ours):
                self._differs(path, recorded, ours)
        elif name == "cursor":
            self.pairing.learn(recorded, ours)
        elif micros(recorded) is not None and len(recorded) > 10:
            apart = abs((micros(recorded) or 0) - (micros(ours) or 0)) / 1e6
            if apart > MAX_SECONDS_APART:
                self._differs(path, recorded, ours)
        elif " [user_email=" in recorded:
            self.compare_text(recorded, ours)
        elif name == "Path":
            self._equal(self.pairing.translated(recorded), ours, path)
        else:
            self._equal(self._generated(recorded, ours, name), ours, path)

    def _generated(self, recorded: str, ours: str, name: str) -> str:
        """The recorded name of an experiment, with our random suffix if its name was taken."""
        request = self.exchange.request
        if name == "name" and isinstance(request, dict) and request.get("ensure_new"):
            suffix = re.compile("-[0-9a-f]{8}$")
            if suffix.search(recorded) and suffix.search(ours):
                return recorded[:-8] + ours[-8:]
        return self.pairing.translated(recorded)

    def compare_text(self, recorded: str, ours: str) -> None:
        """Texts with the caller in brackets behind them: the same text, the same brackets."""
        plain = [re.sub(r" \[\w+=.*", "", text, flags=re.DOTALL) for text in (recorded, ours)]
        brackets = [re.findall(r"\[(\w+)=", text) for text in (recorded, ours)]
        self._equal(self.pairing.translated(plain[0]), plain[1], "text")
        if brackets[0] != brackets[1]:
            self._differs("brackets", brackets[0], brackets[1])

    def _equal(self, recorded: str, ours: str, path: str) -> None:
        if recorded != ours:
            self._differs(path, recorded, ours)

    def _differs(self, path: str, recorded: Any, ours: Any) -> None:
        self.problems.append(f"{path}: {ours!r}, not {recorded!r}")
