"""What the declared settings and options generate: `.env.example`, and the settings and options
pages of the manual. tests/support/manual.py writes them.
"""

from __future__ import annotations

from typing import List, Sequence

from bt_migrate.config.declare import Setting
from bt_migrate.config.options import EXAMPLES, EXIT_CODES, PROGRAMS, Option
from bt_migrate.config.settings import ROW_OVERRIDES, SECTIONS, TABLE

# Programs whose shared options are the common ones.
PHASES = tuple(name for name in PROGRAMS if name.startswith("migrate-") or name == "validate")


def env_example() -> str:
    lines = [
        "## Settings of bt_migrate: copy this file to .env and fill in the two keys.",
        "## The environment wins over .env, options win over both. An empty MIGRATION_ variable of",
        "## the environment hides the one of this file.",
    ]
    for section in SECTIONS:
        lines += _entries(section.capitalize(), _settings_in(section))
    lines += _entries("Rows of one kind only (empty: as above)", ROW_OVERRIDES)
    return "\n".join(lines) + "\n"


def _settings_in(section: str) -> List[Setting]:
    return [setting for setting in TABLE if setting.section == section]


def _entries(title: str, settings: Sequence[Setting]) -> List[str]:
    lines = ["", f"## {title}"] if settings else []
    for setting in settings:
        lines += [f"# {setting.about}", f"{setting.env}={setting.default}"]
    return lines


def settings_parts() -> List[str]:
    parts = [
        "A setting is read from an [option](options.md), else from the environment, else "
        "from `.env`\n"
        "in the current folder (`--env-file` names another file), else its default holds. "
        "API keys\n"
        "are never options: an option shows in `ps`. `.env.example` holds all settings, to copy.",
    ]
    for section in SECTIONS:
        parts += _settings_table(section, _settings_in(section))
    names = [f"- `{setting.env}`" for setting in ROW_OVERRIDES]
    return [
        *parts,
        "## Rows of one kind",
        "These win over the settings of all rows, and an option wins over them.",
        "\n".join(names),
    ]


def _settings_table(section: str, settings: Sequence[Setting]) -> List[str]:
    rows = [
        f"| `{setting.env}` | {_code(setting.flag)} | {_code(setting.default)} | {setting.about} |"
        for setting in settings
    ]
    head = ["| name | option | default | meaning |", "|---|---|---|---|"]
    return [f"## {section.capitalize()}", "\n".join([*head, *rows])] if rows else []


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def options_parts() -> List[str]:
    common = set(PROGRAMS[PHASES[0]]).intersection(*(PROGRAMS[name] for name in PHASES[1:]))
    parts = [
        "Options win over [settings](settings.md). An option means the same in every program. A\n"
        "program has only the options that do something in it. `--help` shows the common ones,\n"
        "and `--help-all` all.",
        "## Common options",
        "Of `validate` and every `migrate-` program:",
        _options_table([option for option in PROGRAMS[PHASES[0]] if option in common]),
    ]
    for name, options in PROGRAMS.items():
        own = [option for option in options if name not in PHASES or option not in common]
        parts += [f"## bin/{name}"]
        if name in PHASES:
            parts.append("The common options, and:" if own else "The common options.")
        parts += [_options_table(own)] if own else []
        commands = [f"$ bin/{name} {words}".rstrip() for words in EXAMPLES[name]]
        parts.append("\n".join(["```console", *commands, "```"]))
    return [*parts, "## Exit codes", EXIT_CODES.partition(": ")[2].capitalize() + "."]


def _options_table(options: Sequence[Option]) -> str:
    ordered = sorted(options, key=lambda option: SECTIONS.index(option.section))
    rows = [
        f"| `{f'{option.flag} {option.metavar}'.strip()}` | {option.help} |" for option in ordered
    ]
    return "\n".join(["| option | does |", "|---|---|", *rows])
