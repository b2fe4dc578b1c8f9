"""A store that keeps or returns other bytes than it was given: found, named and uploaded again."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from functools import partial
from pathlib import Path
from typing import Any, Iterator, Tuple

import pytest

from bt_migrate.api.client import Api
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.attachments.read import attachment_chunks, stated_md5
from bt_migrate.errors import NetworkError
from bt_migrate.phases.accept import main as accept
from tests.support.loopback import Asked, Loopback, Reply
from tests.support.orgs import report
from tests.support.row_runs import World, call, small_rows, world

LOGS = "project_logs"
PICTURE = bytes(range(256)) * 4


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        picture = made.source.attach(PICTURE, filename="a.png", content_type="image/png")
        rows = small_rows(2) + [{"id": "with", "input": {"file": picture}}]
        made.source.insert(LOGS, made.project, rows)
        yield made


class WrongStore:
    """Keeps other bytes of the same length of each upload, while it is `wrong`."""

    def __init__(self, w: World) -> None:
        self.uploads = 0
        self.wrong = True
        self._w = w
        w.sandbox.on_request = self._spoil

    def _spoil(self, number: int, moment: str, method: str, path: str) -> None:
        if (moment, method) != ("after", "PUT") or not path.startswith("/bucket/"):
            return
        self.uploads += 1
        blobs = self._w.sandbox.files.blobs
        for place in [place for place in blobs if place[0] == self._w.dest.id]:
            if self.wrong:
                blobs[place] = bytes(len(PICTURE))


def run_next(w: World, command: str) -> int:
    program, *words = shlex.split(command.partition("  # ")[0])
    return call(w, Path(program).name.replace("-", "_"), *words)


def file_there(w: World) -> Any:
    twin = w.dest.objects("project")[0]["id"]
    (row,) = [row for row in w.dest.rows(LOGS, twin) if row["id"] == "with"]
    return w.dest.attachment(row["input"]["file"]["key"])


@pytest.mark.parametrize(
    "header", [("Content-MD5", "{}"), ("x-goog-hash", "crc32c=AAAAAA==, md5={}")], ids=str
)
def test_a_download_with_other_bytes_than_the_store_names_is_tried_again(
    header: Tuple[str, str],
) -> None:
    name, form = header
    stated = {name: form.format(base64.b64encode(hashlib.md5(PICTURE).digest()).decode())}
    bodies = [bytes(len(PICTURE)), PICTURE, b"other"]

    def answer(asked: Asked) -> Reply:
        if asked.path.startswith("/attachment"):
            address = {"downloadUrl": f"http://{asked.headers['Host']}/bucket/x"}
            return Reply(200, json.dumps({**address, "status": {"upload_status": "done"}}).encode())
        return Reply(200, bodies.pop(0) if len(bodies) > 1 else bodies[0], stated)

    reference = {"key": "k", "filename": "f", "content_type": "a/b"}
    with Loopback(answer) as server:
        endpoint = Endpoint("source", server.url, "sk-key")
        api = Api(endpoint, Limits(1, 0.001, 2), writable=False)
        read = partial(attachment_chunks, api, reference)
        assert api.store.retrying(lambda: b"".join(read())) == PICTURE
        with pytest.raises(NetworkError, match="do not have the MD5 that the store states"):
            api.store.retrying(lambda: b"".join(read()))


def test_compressed_files_of_google_are_not_compared_with_what_is_stored() -> None:
    headers = {"x-goog-hash": "md5=AAAA", "x-goog-stored-content-encoding": "gzip"}
    assert (stated_md5(headers), stated_md5({}), stated_md5({"x-goog-hash": "md5=AA="})) == (
        "",
        "",
        "AA=",
    )


@pytest.mark.parametrize("found_by", ["the copy", "bin/verify"])
@pytest.mark.variants(1)
def test_bytes_that_a_store_spoiled_once_are_uploaded_again(found_by: str, w: World) -> None:
    store = WrongStore(w)
    if found_by == "the copy":
        assert call(w, "migrate_all", "--full") == 1
    else:
        assert call(w, "migrate_all", "--no-verify") == 0
        assert call(w, "verify", "--full") == 1
    store.wrong = False
    (command,) = report(w.root)["next_commands"]
    assert (command.split()[0], "uploads 1 attachment again" in command) == (
        "bin/migrate-all",
        True,
    )
    assert run_next(w, command) == 0
    assert (file_there(w), store.uploads) == (PICTURE, 2)
    assert "uploads" not in report(w.root)["next_commands"][0]


def test_bytes_that_a_store_always_spoils_are_reported_and_can_be_accepted(w: World) -> None:
    store = WrongStore(w)
    assert call(w, "migrate_all", "--full") == 1
    assert run_next(w, report(w.root)["next_commands"][0]) == 1
    assert store.uploads == 2
    (difference,) = report(w.root)["verification"]["differences"]
    assert (difference["row"], difference["fields"]) == ("with", ["input.file.key"])
    (command,) = report(w.root)["next_commands"]
    assert command.startswith("bin/accept "), command
    assert accept([str(w.root), "--all", "--yes"]) == 0
    assert call(w, "migrate_all", "--full") == 0


def test_a_field_that_became_an_attachment_is_uploaded_again(tmp_path: Path) -> None:
    """Its bytes are made of the source's row, and also if the limit is another one by now."""
    large = {"text": "x" * 20_000}
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [{"id": "large", "input": large, "output": 1}])
        store = WrongStore(w)
        assert call(w, "migrate_all", "--full", MIGRATION_MAX_ROW_BYTES="10000") == 1
        store.wrong = False
        (command,) = report(w.root)["next_commands"]
        assert "uploads 1 attachment again" in command, command
        assert run_next(w, command) == 0
        twin = w.dest.objects("project")[0]["id"]
        (row,) = (row for row in w.dest.rows(LOGS, twin) if row["id"] == "large")
        assert json.loads(w.dest.attachment(row["input"]["key"])) == large
        assert store.uploads == 2


def test_a_copy_of_bytes_that_the_source_lost_is_kept(w: World) -> None:
    """Also when a run that did not copy it sends the row again."""
    assert call(w, "migrate_all", "--full") == 0
    blobs = w.sandbox.files.blobs
    for place in [place for place in blobs if place[0] == w.source.id]:
        del blobs[place]
    assert call(w, "migrate_all", "--full", "--new-run") == 0
    (row,) = (row for row in w.source.rows(LOGS, w.project) if row["id"] == "with")
    edited = {"id": "with", "input": row["input"], "output": "edited"}
    w.source.insert(LOGS, w.project, [edited])
    assert call(w, "migrate_all", "--full", "--since-last") == 0
    assert file_there(w) == PICTURE
    (there,) = (row for row in w.dest.rows(LOGS, w.twin(LOGS, w.project)) if row["id"] == "with")
    assert there["output"] == "edited"
