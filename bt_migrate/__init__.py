"""Moves a Braintrust organization into another one: completely, provably and fast.

`run` starts a program of bin/, `read_report` reads what it reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bt_migrate.phases.library import read_report, run

__version__ = "0.1.0"
__all__ = ("__version__", "read_report", "run")


def __getattr__(name: str) -> Any:
    """Import the programs only when they are used: `import bt_migrate` alone stays cheap."""
    if name in ("read_report", "run"):
        from bt_migrate.phases import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
