"""Bytes of attachments on their way: broken transfers, signed URLs, sizes, refused uploads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, List, Optional

import pytest

from bt_migrate.api.client import Api
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Fault
from tests.support.loopback import Loopback, Reply
from tests.support.orgs import environment, run
from tests.support.row_attachments import LOGS, PICTURE, attach, dest_row
from tests.support.row_runs import READ, WRITE, World, small_rows, told, world

TROUBLE = [
    Fault("truncate", READ, "GET", path="/bucket/", times=2),
    Fault("reset_before", READ, "GET", path="/bucket/", times=2),
    Fault("status", READ, "GET", path="/bucket/", times=2, status=503, body="SlowDown"),
    Fault(
        "status",
        READ,
        "GET",
        path="/bucket/",
        times=1,
        status=403,
        body="<Error><Code>AccessDenied</Code></Error>",
    ),
    Fault("reset_before", WRITE, "PUT", path="/bucket/", times=2),
    Fault("reset_after", WRITE, "PUT", path="/bucket/", times=1),
    Fault("status", WRITE, "PUT", path="/bucket/", times=2, status=500),
    Fault("status", WRITE, "POST", path="^/attachment$", times=2, status=503),
    Fault("reset_after", WRITE, "POST", path="^/attachment/status$", times=1),
    Fault("truncate", READ, "GET", path=r"^/attachment\?", times=2),
    Fault(
        "garbage", READ, "GET", path="/bucket/", times=2
    ),  # a proxy's page, with 200, where the store should answer
    Fault("garbage", WRITE, "PUT", path="/bucket/", times=2),
]


@pytest.mark.parametrize(
    "number",
    range(len(TROUBLE)),
    ids=[f"{fault.kind}-{fault.method}-{fault.details.get('status', '')}" for fault in TROUBLE],
)
def test_a_transfer_that_breaks_off_is_tried_again(number: int, tmp_path: Path) -> None:
    fault = TROUBLE[number]
    with world(tmp_path) as w:
        big = bytes(range(256)) * 9000  # larger than what is kept in memory
        w.source.insert(LOGS, w.project, [{"id": "r", "input": attach(w, big)}, *small_rows(3)])
        again = w.sandbox.faults.add(
            Fault(fault.kind, fault.org, fault.method, fault.path, fault.times, **fault.details)
        )
        assert w.move(LOGS) == 0
        assert (
            w.sandbox.faults.hits(again),
            w.dest.attachment(dest_row(w, "r")["input"]["key"]) == big,
        ) == (fault.times, True)
        assert (w.sandbox.leaks(), told(w.root)) == ([], {})


@pytest.mark.parametrize("fault", [None, ("GET", 503), ("PUT", 403), ("PUT", 503)])
def test_signed_urls_are_in_no_output_and_no_file(fault: Optional[Any], tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert(
            LOGS, w.project, [{"id": "r", "input": attach(w)}, {"id": "h", "input": "h" * 50_000}]
        )
        w.sandbox.max_request_bytes = w.sandbox.logs3_payload_max_bytes = 20_000
        if fault:
            w.sandbox.faults.add(
                Fault(
                    "status",
                    None,
                    fault[0],
                    path="/bucket/",
                    times=None,
                    status=fault[1],
                    body="SlowDown",
                )
            )
        settings = {
            "LOG_LEVEL": "DEBUG",
            "MIGRATION_INSERT_MAX_REQUEST_BYTES": "20000",
            "MIGRATION_RETRY_ATTEMPTS": "1",
        }
        ended = run(w.sandbox, w.root, program="migrate_logs", **settings)
        files = b"".join(path.read_bytes() for path in w.root.rglob("*") if path.is_file())
        said = (ended.out + ended.err).encode() + files
        tokens = [token.encode() for token in w.sandbox.files._signed]
        assert (
            len(tokens) >= 1,
            [token for token in tokens if token in said],
            b"X-Amz" in said,
        ) == (
            True,
            [],
            False,
        )
        assert ended.code == (1 if fault else 0)
        assert "Traceback" not in ended.err


def test_only_azure_gets_its_blob_type_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The host is what decides, so the request goes through a proxy on loopback."""
    with Loopback([Reply(201, b"")]) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        api = Api(
            Endpoint("destination", "http://api.example", "sk-never-sent"),
            Limits(0, 0, 2),
            writable=True,
        )
        for host in ("acct.blob.core.windows.net", "bucket.s3.amazonaws.com"):
            api.store.upload(
                f"http://{host}/c/key?sig=secret", {"Content-Type": "image/png"}, PICTURE
            )
        seen = [
            {name.lower(): value for name, value in request.headers.items()}
            for request in server.asked
        ]
        assert [
            (headers.get("x-ms-blob-type"), headers["content-type"], headers["content-length"])
            for headers in seen
        ] == [
            ("BlockBlob", "image/png", str(len(PICTURE))),
            (None, "image/png", str(len(PICTURE))),
        ]
        assert [name for headers in seen for name in headers if name == "authorization"] == []
        assert [request.body for request in server.asked] == [PICTURE, PICTURE]


PEAK = """
import sys
from bt_migrate.phases.migrate_logs import main
code = main(sys.argv[1:])
status = open("/proc/self/status")
print("PEAK", next(line.split()[1] for line in status if line.startswith("VmHWM")))
sys.exit(code)
"""


def peak_kb(w: World) -> int:
    """The most memory that a run of its own takes."""
    command = [sys.executable, "-c", PEAK, "--state-dir", str(w.root)]
    done = subprocess.run(
        command,
        env=environment(w.sandbox),
        cwd=str(w.root.parent),
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split("PEAK ")[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_large_attachment_is_never_whole_in_memory(tmp_path: Path) -> None:
    peaks = []
    for size in (1000, 40_000_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        with world(folder) as w:
            w.source.insert(LOGS, w.project, [{"id": "r", "input": attach(w, b"\xa5" * size)}])
            peaks.append(peak_kb(w))
            data = w.dest.attachment(dest_row(w, "r")["input"]["key"])
            assert (len(data), data.count(b"\xa5")) == (size, size)
    assert peaks[1] - peaks[0] < 6_000


@pytest.mark.parametrize("body", [b"{}", b'{"row_ids":[1,2,3]}', b"null", b'"ok"', b""])
@pytest.mark.parametrize("always", [False, True])
def test_a_refused_upload_status_is_sent_again_or_fails_the_attachment(
    always: bool, body: bytes, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [{"id": "r", "input": attach(w)}])
        asked: List[str] = []

        def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
            if path == "/attachment/status":
                asked.append(path)
                return Answer(200, body) if always or len(asked) < 2 else None
            return None

        w.sandbox.refuse = refuse
        settings = {"MIGRATION_RETRY_ATTEMPTS": "2", "MIGRATION_RETRY_DELAY": "0.01"}
        assert w.move(LOGS, **settings) == int(always)
        w.sandbox.refuse = None
        assert w.move(LOGS) == 0
        assert w.dest.attachment(dest_row(w, "r")["input"]["key"]) == PICTURE
