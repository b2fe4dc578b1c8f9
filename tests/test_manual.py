"""The manual agrees with the programs, and every command that it shows is accepted."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import List, Tuple

import pytest

from bt_migrate.config.options import flags_of, make_parser
from bt_migrate.errors import EXIT_INCOMPLETE, EXIT_OK
from bt_migrate.model.resources import SELECTABLE
from bt_migrate.report.fields import REPORT_FIELDS
from tests.support import walkthrough
from tests.support.manual import DOCS, PAGES, ROOT
from tests.support.orgs import TIME_LIMIT_S, environment, report, run, runs, tiny_pair

README = ROOT / "README.md"
PROSE = [README, *sorted(path for path in DOCS.glob("*.md") if path.name not in PAGES)]
MAX_README_LINES = 250
NOT_PHASES = ("test", "sandbox")  # programs without an argparse entry of ours


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_generated_page_is_up_to_date(name: str) -> None:
    # When this fails: python -m tests.support.manual
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name]()


def test_the_report_has_the_documented_fields(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        run(pair.sandbox, tmp_path)
    assert list(report(tmp_path)) == list(REPORT_FIELDS)


def commands(text: str) -> List[Tuple[str, str]]:
    """Returns (program, its arguments) of each command in the console and crontab examples."""
    blocks = "".join(re.findall(r"```(?:console|crontab)\n(.*?)```", text, re.DOTALL))
    return re.findall(r"bin/([a-z-]+)((?: +[^\s#&|>]+| +'[^'\n]*')*)", blocks)


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_every_command_is_accepted_by_its_program(path: Path) -> None:
    for name, words in commands(path.read_text(encoding="utf-8")):
        if name in NOT_PHASES:
            assert (ROOT / "bin" / name).is_file()
            continue
        module = importlib.import_module(f"bt_migrate.phases.{name.replace('-', '_')}")
        # Exits the test, with the parser's message, if an option is unknown.
        flags_of(make_parser(module.NAME, module.__doc__ or ""), shlex.split(words))


def test_the_five_steps_of_the_readme_print_what_it_shows(tmp_path: Path) -> None:
    # When this fails: python -m tests.support.manual
    for command, lines in walkthrough.outputs(tmp_path).items():
        shown = walkthrough.block_in_readme(command)
        printed = walkthrough.block(command, lines)
        assert walkthrough.without_numbers(shown) == walkthrough.without_numbers(printed)


# Not run here: they never end, ask a server elsewhere, need differences, or are arguments of a
# scheduler.
NOT_RUN = ("sandbox", "test", "control", "accept", "probe", "check-openapi")
EXAMPLE_RUN = "checkpoints/20260113_212530"


def command_lines() -> List[Tuple[str, str]]:
    found = [pair for path in PROSE for pair in commands(path.read_text(encoding="utf-8"))]
    return [pair for pair in dict.fromkeys(found) if pair[0] not in NOT_RUN]


@pytest.mark.long
@pytest.mark.parametrize(("name", "words"), command_lines())
def test_every_command_of_the_manual_runs(name: str, words: str, tmp_path: Path) -> None:
    """In a folder in which a move was made: no usage error and no crash."""
    with tiny_pair() as pair:
        env = environment(pair.sandbox)
        for project in ("Support", "Sales", "Evals, golden"):
            pair.source.create("project", {"name": project})
        run(pair.sandbox, tmp_path / "checkpoints")
        if "state/" in words or "shards.jsonl" in words:
            pytest.skip("tests/shards runs these in their order")
        path = runs(tmp_path / "checkpoints")[-1]
        arguments = [
            word.replace(EXAMPLE_RUN, str(path)) for word in shlex.split(words.replace("\\\n", ""))
        ]
        module = f"bt_migrate.phases.{name.replace('-', '_')}"
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], env=env, cwd=tmp_path,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIME_LIMIT_S,
        )  # fmt: skip
    assert done.returncode in (EXIT_OK, EXIT_INCOMPLETE), done.stderr[-2000:]


def test_commands_are_found_in_the_manual() -> None:
    found = [pair for path in PROSE for pair in commands(path.read_text(encoding="utf-8"))]
    assert len(found) > 30
    assert ("verify", " --full") in found


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def test_the_readme_names_the_kinds_that_each_script_moves() -> None:
    text = README.read_text(encoding="utf-8")
    assert walkthrough.with_kinds(text) == text, "run python -m tests.support.manual"


def test_the_readme_names_every_script_and_every_resource() -> None:
    text = README.read_text(encoding="utf-8")
    scripts = [
        path.name for path in (ROOT / "bin").iterdir() if path.suffix == "" and path.is_file()
    ]
    missing = [f"bin/{name}" for name in scripts if f"bin/{name}" not in text]
    missing += [name for name in SELECTABLE if f"`{name}`" not in text]
    assert missing == []


def test_every_page_is_linked_from_the_index_of_the_manual() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = [path.name for path in DOCS.glob("*.md") if path.name != "README.md"]
    assert [name for name in pages if f"({name})" not in index] == []
