"""The README's settings and help texts are those of the code. `python tests/test_readme.py` writes them anew."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

from bt_migrate.config.options import flags_of, make_parser
from bt_migrate.config.settings import TABLE
from bt_migrate.model.equality import TOLERATED
from bt_migrate.model.findings import KINDS
from bt_migrate.model.resources import SELECTABLE
from bt_migrate.phases import ORDER

README = Path(__file__).resolve().parent.parent / "README.md"


def settings_table() -> str:
    rows = [
        f"| `{one.env}` | {f'`{one.default}`' if one.default else ''} | {one.about} |"
        for one in TABLE
    ]
    return "\n".join(["| name | default | |", "|---|---|---|", *rows])


def findings_table() -> str:
    rows = [
        f"| `{name}` | {kind.severity}{', in the loss list' if kind.left_behind else ''} | {kind.about} | {kind.next} |"
        for name, kind in KINDS.items()
    ]
    return "\n".join(
        [
            "| kind | severity | says | what to do, unless the record says more |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def help_texts() -> str:
    parts = []
    for name in ("migrate_all", *ORDER, "undo", "status", "control", "plan_shards", "merge_runs"):
        module = importlib.import_module(f"bt_migrate.phases.{name}")
        text = make_parser(module.NAME, module.__doc__ or "").format_help().rstrip()
        text = text.replace("optional arguments:", "options:")  # as Python before 3.10 says it
        parts.append(
            f"<details><summary><code>bin/{module.NAME} --help</code></summary>\n\n```\n{text}\n```\n</details>"
        )
    return "\n\n".join(parts)


def tolerated_table() -> str:
    return "\n".join(
        [
            "| counted as | what |",
            "|---|---|",
            *(f"| `{name}` | {about} |" for name, about in TOLERATED.items()),
        ]
    )


def section(text: str, name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)\n?<!-- /{name} -->", text, re.DOTALL)
    assert found, f"README.md has no section {name}"
    return found[1]


def test_readme_lists_every_setting_with_its_default() -> None:
    assert section(README.read_text(encoding="utf-8"), "settings") == settings_table()


def test_readme_lists_every_kind_of_finding() -> None:
    assert section(README.read_text(encoding="utf-8"), "findings") == findings_table()


def test_readme_lists_every_tolerated_change() -> None:
    assert section(README.read_text(encoding="utf-8"), "tolerated") == tolerated_table()


def test_readme_holds_the_help_of_every_program() -> None:
    assert section(README.read_text(encoding="utf-8"), "help") == help_texts()


def test_readme_names_every_resource_and_every_script() -> None:
    text = README.read_text(encoding="utf-8")
    scripts = {
        path.name
        for path in (README.parent / "bin").iterdir()
        if path.suffix == "" and path.is_file()
    }
    missing = [name for name in SELECTABLE if f"`{name}`" not in text] + [
        name for name in scripts if f"bin/{name}" not in text
    ]
    assert missing == []


def test_every_command_line_in_the_readme_is_one_that_its_program_takes() -> None:
    prose = README.read_text(encoding="utf-8").partition("<!-- help -->")[0]
    blocks = "".join(re.findall(r"```\w*\n(.*?)```", prose, re.DOTALL))
    lines = re.findall(
        r"bin/(status|control|validate|verify|plan-shards|merge-runs|migrate-[a-z]+)((?: +[^\s#&|>]+| +'[^'\n]*')*)",
        blocks,
    )
    for name, words in lines:
        module = importlib.import_module(f"bt_migrate.phases.{name.replace('-', '_')}")
        flags_of(
            make_parser(name, module.__doc__ or ""), shlex.split(words)
        )  # ends the test where it does not
    assert len(lines) > 15


if __name__ == "__main__":
    new = README.read_text(encoding="utf-8")
    sections = {
        "settings": settings_table,
        "tolerated": tolerated_table,
        "findings": findings_table,
        "help": help_texts,
    }
    for name, content in ((name, make()) for name, make in sections.items()):
        new = new.replace(
            f"<!-- {name} -->\n{section(new, name)}", f"<!-- {name} -->\n{content}\n"
        ).replace("\n\n<!-- /", "\n<!-- /")
    README.write_text(new, encoding="utf-8")
