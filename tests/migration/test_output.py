"""What a run prints and writes: no secrets, mistakes in one line, next commands that work."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple
from urllib.parse import parse_qs, urlsplit

import pytest

from bt_migrate.sandbox.http.faults import Fault
from tests.support.orgs import (
    DEST_KEY,
    SOURCE_KEY,
    AtRequest,
    Ended,
    Pair,
    ended,
    is_insert,
    run,
    runs,
    started,
    tiny_pair,
)

TOKEN = "X-Amz-Signature"


# Secrets ------------------------------------------------------------------------------------------


def leaked(pair: Pair, whole: Ended, folder: Path) -> Set[Tuple[str, str]]:
    """(secret, place) of each API key and each signature of a signed URL in an output or file."""
    texts = {"stdout": whole.out.encode(), "stderr": whole.err.encode()}
    texts.update((str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    signed = {
        parse_qs(urlsplit(entry.path).query)[TOKEN][0]
        for entry in pair.sandbox.requests
        if entry.origin == "files"
    }
    assert signed
    secrets = {SOURCE_KEY, DEST_KEY, TOKEN} | signed
    return {
        (secret, Path(name).name)
        for name, text in texts.items()
        for secret in secrets
        if secret.encode() in text
    }


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.variants(1)
def test_no_key_and_no_signed_url_is_in_any_file_or_output(
    log_format: str, pair: Pair, tmp_path: Path
) -> None:
    pair.sandbox.faults.add(Fault("redirect", path="^/btql", times=3))
    pair.sandbox.faults.add(Fault("truncate", path="/bucket/.*gz", times=1))
    pair.sandbox.faults.add(Fault("status", path="/logs3", times=2, status=500, body="no"))
    pair.sandbox.faults.add(Fault("reset_before", method="GET", path="/bucket/", times=1))
    pair.sandbox.faults.add(
        Fault("status", method="PUT", path="/bucket/", times=None, status=403, body="no")
    )
    pair.sandbox.faults.add(
        Fault("status", "globex", "POST", path="^/v1/view", times=1, status=400, body="no")
    )
    whole = run(pair.sandbox, tmp_path / "runs", "--log-level", "DEBUG", "--log-format", log_format)
    assert (whole.code, leaked(pair, whole, tmp_path), pair.sandbox.leaks()) == (1, set(), [])
    if log_format == "json":
        assert all(isinstance(json.loads(line), dict) for line in whole.err.splitlines())


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.variants(1)
def test_a_key_that_a_server_repeats_is_in_no_file_or_output(
    log_format: str, pair: Pair, tmp_path: Path
) -> None:
    refusals = [("POST", "^/v1/view$"), ("POST", "/logs3"), ("POST", "^/attachment")]
    for method, path in refusals:
        pair.sandbox.faults.add(
            Fault(
                "status",
                "globex",
                method,
                path=path,
                times=1,
                status=400,
                body=f"invalid key {DEST_KEY}",
            )
        )
    pair.sandbox.faults.add(
        Fault(
            "status",
            "acme",
            "GET",
            path="^/attachment",
            times=1,
            status=404,
            body=f"not for {SOURCE_KEY}",
        )
    )
    whole = run(pair.sandbox, tmp_path / "runs", "--log-level", "DEBUG", "--log-format", log_format)
    assert (whole.code, leaked(pair, whole, tmp_path)) == (1, set())


def test_files_of_a_run_are_for_their_owner_only(pair: Pair, tmp_path: Path) -> None:
    run(pair.sandbox, tmp_path / "runs")
    places = [tmp_path / "runs", *(tmp_path / "runs").rglob("*")]
    assert [str(path) for path in places if path.stat().st_mode & 0o077] == []


# Refused before anything is written ---------------------------------------------------------------

WRONG: List[Tuple[str, int, List[str], Dict[str, str]]] = [
    ("wrong source key", 2, [], {"BT_SOURCE_API_KEY": "sk-nobody"}),
    ("wrong destination key", 2, [], {"BT_DEST_API_KEY": "sk-nobody"}),
    ("dead source", 3, [], {"BT_SOURCE_URL": "http://127.0.0.1:9"}),
    ("dead destination", 3, [], {"BT_DEST_URL": "http://127.0.0.1:9"}),
    ("same organization", 2, [], {"BT_DEST_API_KEY": SOURCE_KEY}),
    ("unknown resource", 2, ["--resources", "datasets,widgets"], {}),
    ("unknown resource in the environment", 2, [], {"MIGRATION_RESOURCES": "widgets"}),
    ("unknown project", 2, ["--projects", "beta,gamma"], {}),
    ("no source key", 2, [], {"BT_SOURCE_API_KEY": ""}),
    ("no destination key", 2, [], {"BT_DEST_API_KEY": ""}),
    ("no number", 2, [], {"MIGRATION_BATCH_SIZE": "many"}),
    ("zero", 2, [], {"MIGRATION_MAX_CONCURRENT": "0"}),
    ("no switch", 2, [], {"MIGRATION_EVENTS_USE_SEEN_DB": "perhaps"}),
    ("no level", 2, ["--log-level", "LOUD"], {}),
    ("no date", 2, ["--created-after", "some day"], {}),
    ("empty window", 2, ["--created-after", "2025-02-01", "--created-before", "2025-01-01"], {}),
    ("no URL", 2, [], {"BT_DEST_URL": "api.braintrust.dev"}),
    ("unknown organization", 2, [], {"BT_SOURCE_ORG": "initech"}),
    ("no file", 2, ["--env-file", "nowhere.env"], {}),
    ("not an API", 3, [], {"BT_DEST_URL": "FILES"}),
    ("a path behind the URL", 2, [], {"BT_DEST_URL": "API/v1"}),
]


@pytest.fixture(scope="module")
def untouched() -> Iterator[Pair]:
    with tiny_pair() as pair:
        yield pair


@pytest.mark.parametrize(
    ("code", "args", "settings"),
    [pytest.param(*entry[1:], id=entry[0].replace(" ", "-")) for entry in WRONG],
)
def test_mistakes_are_reported_in_one_line_before_anything_is_written(
    code: int, args: List[str], settings: Dict[str, str], untouched: Pair, tmp_path: Path
) -> None:
    urls = {"FILES": untouched.sandbox.files_url, "API/v1": untouched.sandbox.url + "/v1"}
    settings = {name: urls.get(value, value) for name, value in settings.items()}
    whole = run(untouched.sandbox, tmp_path / "runs", *args, **{"LOG_LEVEL": "ERROR", **settings})
    written = untouched.sandbox.writes("globex") + untouched.sandbox.writes("acme")
    lines = [line for line in whole.err.splitlines() if line]
    assert (whole.code, len(lines), written) == (code, 1, []), whole.err
    assert "Traceback" not in whole.err and lines[0].startswith("bt_migrate: ")


def told_next(done: Ended) -> List[str]:
    """Program and arguments of the command that it says comes next."""
    (line,) = [entry for entry in done.out.splitlines() if entry.startswith("Next: bin/")]
    program, *args = shlex.split(line[len("Next: bin/") :], comments=True)
    return [program.replace("-", "_"), *args]


def test_each_recommended_next_command_does_what_its_comment_says(
    pair: Pair, tmp_path: Path
) -> None:
    root, plan = tmp_path / "runs", tmp_path / "the plan.json"
    (alpha,) = [
        entry["id"] for entry in pair.source.objects("project") if entry["name"] == "Alpha/α"
    ]
    names = ("--projects", "Alpha/α,beta", "--rename-projects", "Alpha/α=New home")
    done = run(pair.sandbox, root, "--dry-run", f"--plan-out={plan}", "--fail-on-loss", *names)
    program, *args = told_next(done)
    assert (program, "--dry-run" in args, plan.name in " ".join(args)) == (
        "migrate_all",
        False,
        True,
    ), done.out
    pair.sandbox.on_request = AtRequest(
        3, "after", signal.SIGTERM, lambda method, path: is_insert(path)
    )
    with started(pair.sandbox, root, *args, program=program) as process:
        pair.sandbox.on_request.process = process
        stopped = ended(process)
    assert stopped.code not in (0, 1), stopped.out
    program, *args = told_next(stopped)
    args = [entry for entry in args if entry != "--no-verify"]  # with which tests begin it
    done = run(pair.sandbox, tmp_path / "elsewhere", *args, "--verify", program=program)
    # the plan, the plan that --plan compares with it, and the move
    assert (
        done.code,
        len(runs(root)),
        sorted(entry["name"] for entry in pair.dest.objects("project")),
    ) == (0, 3, ["New home", "beta"]), done.out
    pair.source.insert("project_logs", alpha, [{"id": "new", "input": "since"}])
    program, *args = told_next(done)
    assert ("--since-last" in args, "--plan" in args) == (True, False)
    done = run(pair.sandbox, tmp_path / "elsewhere", *args, program=program)
    (here,) = [entry["id"] for entry in pair.dest.objects("project") if entry["name"] == "New home"]
    assert (
        done.code,
        [entry["input"] for entry in pair.dest.rows("project_logs", here) if entry["id"] == "new"],
    ) == (0, ["since"]), done.out
