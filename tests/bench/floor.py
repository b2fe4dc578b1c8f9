"""The floors that figures are measured against, each in a process of its own.

    floor.py read URL KEY PROJECT FOLDER     reads all log rows, one page after the other, and
                                             keeps the pages
    floor.py json FOLDER standard|orjson     decodes these pages and encodes their rows as they
                                             are inserted
    floor.py objects URL KEY                 makes what the ideal of "objects" counts, ten at a time

Prints one JSON line.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple
from urllib.parse import urlsplit

KEY = b'"_pagination_key":"'
# Fields of a read row that an insert does not accept.
NOT_INSERTED = frozenset(
    (
        "_xact_id _pagination_key org_id project_id log_id is_root comments audit_data "
        "classifications _async_scoring_state"
    ).split()
)


def read(url: str, key: str, project: str, folder: str) -> Dict[str, Any]:
    """Each query leaves as soon as the page before it is there: nobody who reads in one stream can
    be faster.
    """
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    after, number, started = "", 0, time.monotonic()
    while True:
        above = f"filter: _pagination_key > '{after}'\n" if after else ""
        query = (
            f"select: *\nfrom: project_logs('{project}') spans\n{above}sort: _pagination_key "
            "asc\nlimit: 1000"
        )
        connection.request("POST", "/btql", json.dumps({"query": query, "fmt": "json"}), headers)
        page = connection.getresponse().read()
        place = page.rfind(KEY)
        if place < 0:
            break
        after = page[place + len(KEY) :].split(b'"', 1)[0].decode()
        Path(folder, f"{number:06}.json").write_bytes(page)
        number += 1
        if page.count(KEY) < 1000:
            break
    return {"pages": number, "seconds": time.monotonic() - started}


def library(name: str) -> Tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    if name == "orjson":
        import orjson

        return orjson.loads, orjson.dumps
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    return json.loads, lambda value: encode(value).encode()


def decode_and_encode(folder: str, name: str) -> Dict[str, Any]:
    """CPU seconds for the bytes of the pages -> values, and for the insertable rows of each page ->
    bytes, a page at a time.
    """
    decode, encode = library(name)
    decoding = encoding = 0.0
    rows = 0
    for path in sorted(Path(folder).glob("*.json")):
        page = path.read_bytes()
        started = time.process_time()
        value = decode(page)
        decoding += time.process_time() - started
        kept: List[Any] = [
            {field: row[field] for field in row if field not in NOT_INSERTED}
            for row in value["data"]
        ]
        started = time.process_time()
        encode(kept)
        encoding += time.process_time() - started
        rows += len(kept)
    return {"rows": rows, "decode_s": decoding, "encode_s": encoding, "cpu_s": decoding + encoding}


def objects(url: str, key: str) -> Dict[str, Any]:
    """What the ideal of "objects" counts of the destination, and nothing else: lists, projects,
    objects, and 6000 rows of 1 KB in 20 requests, by ten threads with a connection each.
    """
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    local = threading.local()

    def ask(method: str, path: str, body: bytes = b"") -> Any:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(urlsplit(url).netloc)
        local.connection.request(method, path, body or None, headers)
        return json.loads(local.connection.getresponse().read())

    def make(kind: str, number: int, project: str = "") -> str:
        body = {"name": f"{kind} {number}", **({"project_id": project} if project else {})}
        return str(ask("POST", f"/v1/{kind}", json.dumps(body).encode())["id"])

    texts = (
        [{"id": f"{part}-{number}", "input": "a word " * 140} for number in range(300)]
        for part in range(20)
    )
    bodies = [json.dumps({"events": events}).encode() for events in texts]
    with ThreadPoolExecutor(10) as pool:
        started = time.monotonic()
        for kind in ("organization", "project", "dataset"):
            ask("GET", f"/v1/{kind}")
        projects = list(pool.map(lambda number: make("project", number), range(5)))
        kinds = ["dataset"] * 100 + ["experiment"] * 200
        ids = list(
            pool.map(lambda number: make(kinds[number], number, projects[number % 5]), range(300))
        )
        list(
            pool.map(
                lambda number: ask(
                    "POST", f"/v1/experiment/{ids[-1 - number]}/insert", bodies[number]
                ),
                range(20),
            )
        )
        return {"seconds": time.monotonic() - started}


def main() -> None:
    task, *arguments = sys.argv[1:]
    print(
        json.dumps({"read": read, "json": decode_and_encode, "objects": objects}[task](*arguments))
    )


if __name__ == "__main__":
    main()
