"""How a setting is declared: as a field of a dataclass.

The metadata of the field holds the environment variable, the flag, the function that reads the
text, and the help text for `.env.example`, the manual and `--help`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from bt_migrate.config.values import switch

_METADATA = "setting"


@dataclass(frozen=True)
class Setting:
    """One setting. Without `env` only an option sets it; without `flag` only the environment."""

    field: str
    section: str
    env: str
    default: str  # as text
    read: Callable[[str, str], Any]
    flag: str  # "--batch-size"
    metavar: str  # "N"; "" for a switch
    about: str
    kept: bool  # changes what is moved: every recommended command has the option again

    @property
    def inverted(self) -> bool:
        """Whether the option turns the setting off, such as --no-attachments for `attachments`."""
        return self.flag == f"--no-{self.field.replace('_', '-')}"

    @property
    def dest(self) -> str:
        """The name of the option among the parsed options."""
        return f"no_{self.field}" if self.inverted else self.field

    @property
    def name(self) -> str:
        """The name in messages: the variable, or the flag if there is no variable."""
        return self.env or self.flag

    def text_in(self, options: Mapping[str, Any]) -> Optional[str]:
        """Returns the text of the option, or None if the option was not given."""
        given = options.get(self.dest)
        if given in (None, False):
            return None
        if given is True:
            return "false" if self.inverted else "true"
        return str(given)


def setting(
    section: str, names: str, default: str, read: Callable[[str, str], Any], about: str
) -> Any:
    """A field of the settings.

    `names`: the environment variable and the option, "MIGRATION_BATCH_SIZE --batch-size N", or one
    of the two. An option without a metavar is a switch.
    """
    env, flag, metavar = _parsed(names)
    declared = {"section": section, "env": env, "default": default, "read": read, "flag": flag}
    more = {"metavar": metavar, "about": about, "kept": False}
    return field(
        default_factory=lambda: read(env or flag, default),
        metadata={_METADATA: {**declared, **more}},
    )


def option_switch(section: str, flag: str, about: str) -> Any:
    """Returns a field that is False unless the option is given."""
    return setting(section, flag, "false", switch, about)


def kept(declared: Any) -> Any:
    """The field of a setting that is `kept`, see Setting."""
    metadata = {_METADATA: {**declared.metadata[_METADATA], "kept": True}}
    return field(default_factory=declared.default_factory, repr=declared.repr, metadata=metadata)


def secret(declared: Any) -> Any:
    """The field of a setting that `repr` does not show."""
    declared.repr = False
    return declared


def _parsed(names: str) -> Tuple[str, str, str]:
    """Returns the environment variable, the flag and the metavar, "" for what is not there."""
    env, dashes, option = names.partition("--")
    flag, _, metavar = option.partition(" ")
    return env.strip(), f"{dashes}{flag}", metavar


def settings_of(cls: type) -> Tuple[Setting, ...]:
    """Returns the settings that a dataclass declares, in the order of its fields."""
    declared: Dict[str, Mapping[str, Any]] = {
        item.name: item.metadata[_METADATA] for item in fields(cls) if _METADATA in item.metadata
    }
    return tuple(Setting(name, **facts) for name, facts in declared.items())
