"""What programs print with --json is what the manual and its JSON Schemas say."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import jsonschema
import pytest

from bt_migrate.phases import control, merge_runs, status
from bt_migrate.phases import report as report_program
from bt_migrate.sandbox.main import HEADER, write_env
from tests.support.manual import DOCS
from tests.support.orgs import TIME_LIMIT_S, Pair, environment, run, runs, tiny_pair


def check(name: str, printed: Any) -> None:
    """Compare with the schema in the manual. A field that it lacks is not documented either."""
    schema = json.loads((DOCS / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(printed)
    for entry in printed if isinstance(printed, list) else [printed]:
        assert set(entry) <= set(schema.get("items", schema)["properties"])


def printed(capsys: Any) -> Any:
    return json.loads(capsys.readouterr().out)


def output(pair: Pair, root: Path, *arguments: str, program: str) -> Any:
    done = run(pair.sandbox, root, *arguments, "--json", program=program)
    assert done.code in (0, 1), done.last_words
    assert all(json.loads(line)["level"] for line in done.err.splitlines())
    if program == "plan_shards":
        return json.loads(done.out.splitlines()[-1])
    return json.loads(done.out)


def test_every_program_prints_the_documented_fields(tmp_path: Path, capsys: Any) -> None:
    root = tmp_path / "runs"
    plan = tmp_path / "plan.json"
    with tiny_pair() as pair:
        check("summary", output(pair, root, program="validate"))
        planned = output(pair, root, "--dry-run", "--plan-out", str(plan), program="migrate_all")
        check("summary", planned)
        check("plan", json.loads(plan.read_text(encoding="utf-8")))
        moved = output(pair, root, "--no-verify", "--new-run", program="migrate_all")
        check("summary", moved)
        assert "exit_code" in moved
        made = str(runs(root)[-1])
        change_a_row(pair.dest)
        for depth in ("--counts", "--full"):
            check("verify", output(pair, root, depth, program="verify"))
        assert report_program.main([made, "--json"]) == 0
        check("report", printed(capsys))
        check("plan-shards", output(pair, root, "--shards", "2", program="plan_shards"))
        assert status.main([made, "--json"]) == 0
        check("status", printed(capsys))
        assert status.main([str(root), "--all", "--json"]) == 0
        check("status-all", printed(capsys))
        joined = ("--state-dir", str(tmp_path / "joined"), "--unfinished", "--json")
        assert merge_runs.main([made, *joined]) == 0
        merged = printed(capsys)
        check("summary", merged)
        assert ("merged" in merged, "exit_code" in merged) == (True, False)
        assert status.main([str(tmp_path), "--json"]) == 0
        check("status-shards", printed(capsys))
        for consent in ([], ["--yes"]):
            undone = subprocess.run(
                [sys.executable, "-m", "bt_migrate.phases.undo", made, "--json", *consent],
                env=environment(pair.sandbox), capture_output=True, text=True, timeout=TIME_LIMIT_S,
            )  # fmt: skip
            check("undo", json.loads(undone.stdout))
        assert status.main([made, "--json"]) == 0
        check("status", printed(capsys))
        asked_of_a_process(Path(made), capsys)


def change_a_row(dest: Any) -> None:
    dataset = dest.objects("dataset")[0]["id"]
    row_id = dest.rows("dataset", dataset)[0]["id"]
    dest.insert("dataset", dataset, [{"id": row_id, "input": "theirs"}])


def asked_of_a_process(made: Path, capsys: Any) -> None:
    """As if this process worked on the run, started with 5 requests in flight."""
    path = made / "status.json"
    side = {"in_flight": 0, "max_concurrent": 5, "started_with": 5, "requests_per_second": None,
            "requests": 0, "retries": 0, "rate_limited": 0}  # fmt: skip
    said = {
        **json.loads(path.read_text(encoding="utf-8")), "state": "running", "pid": os.getpid(),
        "host": socket.gethostname(), "sides": {"source": side}, "updated": "2999-01-01T00:00:00Z",
    }  # fmt: skip
    path.write_text(json.dumps(said), encoding="utf-8")
    assert control.main([str(made), "set", "max-concurrent=5", "--json"]) == 0
    answer = printed(capsys)
    check("control", answer)
    assert answer["requested"]["max-concurrent"] == 5
    assert control.main([str(made), "set", "max-concurrent=6"]) == 2
    assert "was started with 5, which cannot be exceeded" in capsys.readouterr().err


def test_a_plan_in_a_file_adds_nothing_to_the_output(tmp_path: Path) -> None:
    plan = ("--dry-run", "--plan-out", str(tmp_path / "plan.json"))
    with tiny_pair() as pair:
        in_json = run(pair.sandbox, tmp_path / "runs", *plan, "--json")
        in_text = run(pair.sandbox, tmp_path / "runs", *plan)
        carried_out = run(pair.sandbox, tmp_path / "runs", *plan[1:], "--json")
    assert json.loads(in_json.out)["status"] == "completed"
    assert json.loads(carried_out.out)["dry_run"] is False
    assert in_text.out.splitlines()[-1].startswith("Next: ")


def test_the_sandbox_replaces_only_its_own_settings(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    write_env(path, "BT_SOURCE_API_KEY=a")
    write_env(path, "BT_SOURCE_API_KEY=b")
    assert path.read_text() == f"{HEADER}\nBT_SOURCE_API_KEY=b\n"
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("BT_SOURCE_API_KEY=mine\n")
    with pytest.raises(SystemExit, match="is not of a sandbox"):
        write_env(path, "BT_SOURCE_API_KEY=c")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("migrate-all --fill", ["--fill-gaps"]),
        ("migrate-all --resources mcp", ["mcp_servers"]),
        ("migrate-all --resources logs,exp", ["logs,experiments"]),
        ("migrate-all --activate webhook,sl", ["webhook,slack"]),
    ],
)
def test_a_shell_gets_completions(line: str, expected: List[str], tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    place = tmp_path / "words"
    environ = {
        **os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(place),
        "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n",
    }  # fmt: skip
    command = [sys.executable, "-m", "bt_migrate.phases.migrate_all"]
    assert (
        subprocess.run(command, env=environ, cwd=Path.cwd(), timeout=TIME_LIMIT_S).returncode == 0
    )
    assert [word.strip() for word in place.read_text().split("\n")] == expected
