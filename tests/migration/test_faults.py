"""Every kind of server fault: the result is equal, or the failure is reported and resumed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, List, Optional, Tuple

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.faults import Fault
from tests.support.after_faults import SMALL, problems_after_rerun
from tests.support.claims import untrue_claims
from tests.support.compare_orgs import differences
from tests.support.orgs import is_insert, report, run, runs, tiny_pair

LONG = pytest.mark.long
READ, WRITE = "acme", "globex"
INSERT, CREATE, QUERY, LIST = (
    "/logs3$",
    "^/v1/(group|dataset|function|experiment|acl)$",
    "^/btql",
    r"^/v1/\w+\?",
)
PAGE = {
    "status": 403,
    "body": "<html>403 Forbidden</html>",
    "headers": {"Content-Type": "text/html"},
}
RATE = {
    "Code": "TooManyRequestsError",
    "Message": "Rate limit: 40 requests per 4 seconds. Consumed: 41",
    "Path": "/btql",
}


def case(name: str, *faults: Fault, long: bool = False) -> Any:
    return pytest.param(faults, id=name.replace(" ", "-"), marks=[LONG] if long else [])


# Trouble that passes: the run waits, tries again, and ends as if nothing had been.
PASSING = [
    case(
        "429 with Retry-After on queries",
        Fault("status", READ, path=QUERY, times=2, status=429, headers={"Retry-After": "1"}),
    ),
    case(
        "429 with Retry-After on inserts",
        Fault("status", WRITE, path=INSERT, times=2, status=429, headers={"Retry-After": "1"}),
        long=True,
    ),
    case(
        "429 with a date on lists",
        Fault(
            "status",
            READ,
            path=LIST,
            status=429,
            headers={"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"},
        ),
        long=True,
    ),
    case(
        "429 without Retry-After on queries",
        Fault("status", READ, path=QUERY, times=3, status=429, body="Too many requests"),
        long=True,
    ),
    case(
        "429 without Retry-After on creates",
        Fault("status", WRITE, "POST", path=CREATE, times=3, status=429, body=RATE),
    ),
    case(
        "429 storms on both sides",
        Fault("status", READ, times=4, after=12, status=429, body="slow down"),
        Fault("status", WRITE, times=5, after=20, status=429, headers={"Retry-After": "0.2"}),
    ),
    case(
        "500 above a LIMIT of 250",
        Fault("status", path=QUERY, times=None, status=500, above_limit=250, body="timeout"),
    ),
    case(
        "504 above a LIMIT of 25",
        Fault("status", path=QUERY, times=None, status=504, above_limit=25),
    ),
    case("500 on queries", Fault("status", path=QUERY, times=2, status=500), long=True),
    case(
        "503 on lists",
        Fault("status", READ, "GET", path=LIST, times=2, status=503),
        Fault("status", WRITE, "GET", times=2, status=502),
        long=True,
    ),
    case(
        "500 on inserts",
        Fault(
            "status", WRITE, path=INSERT, times=3, status=500, body={"Code": "InternalServerError"}
        ),
    ),
    case(
        "503 on creates",
        Fault("status", WRITE, "POST", path=CREATE, times=3, status=503),
        long=True,
    ),
    case(
        "500 on the second pass",
        Fault("status", WRITE, "PATCH", times=2, status=500),
        Fault("status", WRITE, "PUT", path="^/v1", times=1, status=500),
        long=True,
    ),
    case("reset before queries", Fault("reset_before", READ, path=QUERY, times=3), long=True),
    case(
        "reset before lists",
        Fault("reset_before", READ, "GET", path=LIST, times=3, after=5),
        Fault("reset_before", WRITE, "GET", after=5, times=2),
        long=True,
    ),
    case("reset before inserts", Fault("reset_before", WRITE, path=INSERT, times=3), long=True),
    case("reset after inserts", Fault("reset_after", WRITE, path=INSERT, times=3)),
    case(
        "reset before creates",
        Fault("reset_before", WRITE, "POST", path=CREATE, times=3),
        long=True,
    ),
    case("reset after creates", Fault("reset_after", WRITE, "POST", path=CREATE, times=5)),
    case(
        "reset after project is made",
        Fault("reset_after", WRITE, "POST", path="^/v1/project$", times=3),
        long=True,
    ),
    case(
        "reset after patches and puts",
        Fault("reset_after", WRITE, "PATCH", times=2),
        Fault("reset_after", WRITE, "PUT", path="^/v1", times=2),
        long=True,
    ),
    case("cut off queries", Fault("truncate", READ, path=QUERY, times=2), long=True),
    case(
        "cut off lists",
        Fault("truncate", READ, path=LIST, times=2),
        Fault("truncate", WRITE, "GET", path="^/v1/", times=2, after=3),
        long=True,
    ),
    case("cut off answers of inserts", Fault("truncate", WRITE, path=INSERT, times=3)),
    case("cut off answers of creates", Fault("truncate", WRITE, "POST", path=CREATE, times=4)),
    case("garbage for queries", Fault("garbage", path=QUERY, times=2), long=True),
    case(
        "garbage for lists",
        Fault("garbage", READ, path=LIST, times=2),
        Fault("garbage", WRITE, "GET", path="^/v1/", times=2, after=3),
        long=True,
    ),
    case("garbage for inserts", Fault("garbage", WRITE, path=INSERT, times=3), long=True),
    case("garbage for creates", Fault("garbage", WRITE, "POST", path=CREATE, times=3), long=True),
    case("303 to a gzip object", Fault("redirect", path=QUERY, times=None)),
    case(
        "303 to a gzip object that is cut off",
        Fault("redirect", READ, path=QUERY, times=4),
        Fault("truncate", path="/bucket/.*gz", times=2),
        long=True,
    ),
    case(
        "401 mid-run on queries",
        Fault("status", READ, path=QUERY, times=2, after=2, status=401, body="invalid x-api-key"),
        long=True,
    ),
    case(
        "401 mid-run on writes",
        Fault("status", WRITE, times=3, after=30, status=401, body="invalid x-api-key"),
    ),
    case(
        "403 with a page mid-run on lists",
        Fault("status", READ, path=LIST, times=2, after=4, **PAGE),
        long=True,
    ),
    case(
        "403 with a page mid-run on inserts",
        Fault("status", WRITE, path=INSERT, times=3, after=2, **PAGE),
    ),
    case(
        "slow answers",
        Fault("delay", path=QUERY, times=3, seconds=0.3),
        Fault("delay", path=INSERT, times=3, seconds=0.3),
        long=True,
    ),
    case(
        "the destination answers nothing for 5 s",
        Fault("drop", WRITE, after=40, seconds=5),
        long=True,
    ),
    case(
        "reset at the download of an attachment",
        Fault("reset_before", method="GET", path="/bucket/", times=1),
        long=True,
    ),
    case(
        "download of an attachment is cut off",
        Fault("truncate", method="GET", path="/bucket/", times=1),
        long=True,
    ),
    case(
        "503 for the download of an attachment",
        Fault("status", method="GET", path="/bucket/", times=1, status=503, body="SlowDown"),
    ),
    case(
        "reset at the upload of an attachment",
        Fault("reset_before", method="PUT", path="/bucket/", times=1),
    ),
    case(
        "503 for the upload of an attachment",
        Fault("status", method="PUT", path="/bucket/", times=1, status=503, body="SlowDown"),
        long=True,
    ),
    case(
        "500 for the places of attachments",
        Fault("status", READ, "GET", path="/attachment", times=2, status=500),
        Fault("status", WRITE, "POST", path="^/attachment", times=2, status=500),
        long=True,
    ),
]


@pytest.mark.parametrize("faults", PASSING)
@pytest.mark.variants(2)
def test_temporary_faults_do_not_change_the_result(
    faults: Tuple[Fault, ...], tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        for fault in faults:
            pair.sandbox.faults.add(fault)
        large = any("above_limit" in fault.details for fault in faults)
        whole = run(pair.sandbox, tmp_path / "runs", **({} if large else SMALL))
        assert all(
            pair.sandbox.faults.hits(fault) == (fault.times or pair.sandbox.faults.hits(fault)) > 0
            for fault in faults
        )
        assert (whole.code, differences(pair), pair.sandbox.leaks()) == (0, [], []), (
            whole.last_words
        )
        problems = [
            run_dir
            for run_dir in report(tmp_path / "runs")["objects"]
            if set(run_dir["outcomes"]) - {"created", "skipped"}
        ]
        assert (problems, untrue_claims(pair, runs(tmp_path / "runs")[0])) == ([], [])


def test_a_429_keeps_every_thread_of_that_organization_waiting_for_all_of_retry_after(
    tmp_path: Path,
) -> None:
    concurrent = "4"
    with tiny_pair() as pair:
        fault = pair.sandbox.faults.add(
            Fault("status", WRITE, path=INSERT, after=5, status=429, headers={"Retry-After": "1.5"})
        )
        whole = run(
            pair.sandbox,
            tmp_path / "runs",
            MIGRATION_EVENTS_INSERT_BATCH_SIZE="5",
            MIGRATION_MAX_CONCURRENT=concurrent,
        )
        assert (whole.code, pair.sandbox.faults.hits(fault)) == (0, 1)
        requests = [
            entry
            for entry in pair.sandbox.requests
            if entry.org_name == WRITE and entry.origin == "api"
        ]
        told = next(request.finished for request in requests if request.status == 429)
        early = [item for item in requests if told < item.started < told + 1.45]
        assert len(early) < int(concurrent)  # sent before the answer was read


@pytest.mark.long
def test_an_outage_of_the_destination_for_five_seconds_is_waited_for(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        fault = Fault("reset_before", WRITE, times=None)
        begun: List[float] = []

        def watch(number: int, moment: str, method: str, path: str) -> None:
            if moment == "before" and is_insert(path) and not begun:
                begun.append(time.monotonic())
                pair.sandbox.faults.add(fault)
            elif begun and time.monotonic() - begun[0] > 5:
                pair.sandbox.faults.clear()

        pair.sandbox.on_request = watch
        whole = run(pair.sandbox, tmp_path / "runs", **SMALL)
        assert pair.sandbox.faults.hits(fault) > 3
        assert (whole.code, differences(pair)) == (0, []), whole.last_words


@pytest.mark.long
@pytest.mark.parametrize("told", [True, False])
def test_a_limit_of_queries_per_minute_is_kept_to(told: bool, tmp_path: Path) -> None:
    with tiny_pair() as pair:
        pair.sandbox.btql_per_minute, pair.sandbox.send_retry_after = 12, told
        whole = run(pair.sandbox, tmp_path / "runs")  # asks the source 18 times
        assert (whole.code, differences(pair)) == (0, []), whole.last_words


STAYING = [
    case(
        "500 on all inserts", Fault("status", WRITE, path=INSERT, times=None, status=500), long=True
    ),
    case(
        "500 on all queries", Fault("status", READ, path=QUERY, times=None, status=500), long=True
    ),
    case(
        "400 on all queries",
        Fault("status", READ, path=QUERY, times=None, status=400, body="cannot parse"),
        long=True,
    ),
    case(
        "401 from the middle on",
        Fault("status", READ, times=None, after=40, status=401, body="invalid x-api-key"),
        long=True,
    ),
    case(
        "401 from the middle on in the destination",
        Fault("status", WRITE, times=None, after=45, status=401, body="invalid x-api-key"),
    ),
    case(
        "403 with a page from the middle on",
        Fault("status", WRITE, times=None, after=45, **PAGE),
        long=True,
    ),
    case(
        "403 as JSON on the inserts of one object",
        Fault("status", WRITE, path=INSERT, after=6, status=403, body={"Code": "ForbiddenError"}),
    ),
    case(
        "413 on all inserts",
        Fault(
            "status", WRITE, path=INSERT, times=None, status=413, body="Request Entity Too Large"
        ),
    ),
    case(
        "400 for the bytes of an attachment",
        Fault("status", READ, "GET", path="/attachment", status=400, body="no"),
    ),
    case(
        "403 for the upload of an attachment",
        Fault("status", method="PUT", path="/bucket/", times=None, status=403),
        long=True,
    ),
    case(
        "500 on all creates",
        Fault("status", WRITE, "POST", path=CREATE, times=None, status=500),
        long=True,
    ),
    case(
        "403 as JSON on all writes of a kind",
        Fault(
            "status",
            WRITE,
            "POST",
            path="^/v1/role$",
            times=None,
            status=403,
            body={"Code": "ForbiddenError"},
        ),
        long=True,
    ),
    case(
        "400 on a second pass",
        Fault(
            "status",
            WRITE,
            "PATCH",
            path="^/v1/(function|prompt|experiment)/",
            times=None,
            status=400,
            body="no",
        ),
    ),
    case(
        "400 on the second pass by PUT",
        Fault("status", WRITE, "PUT", path="^/v1", times=None, status=400, body="no"),
        long=True,
    ),
]


@pytest.mark.parametrize("faults", STAYING)
@pytest.mark.variants(1)
def test_lasting_faults_are_reported_and_a_later_run_completes(
    faults: Tuple[Fault, ...], tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        for fault in faults:
            pair.sandbox.faults.add(fault)
        first = run(pair.sandbox, tmp_path / "runs", **SMALL)
        assert all(pair.sandbox.faults.hits(fault) > 0 for fault in faults)
        assert problems_after_rerun(pair, tmp_path / "runs", first) == []


KINDS = (
    "project dataset function experiment group role ai_secret environment prompt "
    "project_score project_automation view acl agent"
).split()


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in KINDS[1:4] else [LONG]) for kind in KINDS]
)
@pytest.mark.variants(1)
def test_one_object_that_cannot_be_made_does_not_stop_the_others(kind: str, tmp_path: Path) -> None:
    path = "/environment" if kind == "environment" else f"/v1/{kind}"
    with tiny_pair() as pair:
        first_one = next(
            obj for obj in pair.source.objects(kind) if obj.get("org_id", "") is not None
        )
        name = {"experiment": "first", "dataset": "answers"}.get(kind) or first_one.get(
            "name", "group_id"
        )
        named = json.dumps(name, ensure_ascii=False).encode()

        def refuse(method: str, target: str, raw: bytes) -> Optional[Answer]:
            """One that others refer to, where anything can; of ACLs, all for groups."""
            mine = method == "POST" and target == path and named in raw
            return Answer(400, b"not today", "text/plain") if mine else None

        pair.sandbox.refuse = refuse
        first = run(pair.sandbox, tmp_path / "runs", **SMALL)
        told = [
            (run_dir["outcome"], "not today" in run_dir["reason"])
            for run_dir in report(tmp_path / "runs")["problems"]
        ]
        assert ("failed", True) in told
        assert problems_after_rerun(pair, tmp_path / "runs", first, (1,)) == []


def test_without_retries_the_first_fault_is_final(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        fault = pair.sandbox.faults.add(Fault("status", WRITE, path=INSERT, times=1, status=503))
        first = run(pair.sandbox, tmp_path / "runs", MIGRATION_RETRY_ATTEMPTS="0", **SMALL)
        assert pair.sandbox.faults.hits(fault) == 1
        assert problems_after_rerun(pair, tmp_path / "runs", first) == []
