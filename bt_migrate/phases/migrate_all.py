"""Move a whole organization: all phases, in order, in one run that can be stopped and started again.

--demo needs no settings: it starts a local sandbox with an example organization, moves that, and compares both sides.
"""

from __future__ import annotations

import importlib
from typing import List, Optional, Sequence

from bt_migrate.phases import ORDER
from bt_migrate.program import Step, run_program

NAME = "migrate-all"


def steps() -> List[Step]:
    """(name, run) of every phase. The driver has no powers of its own."""
    modules = [importlib.import_module(f"bt_migrate.phases.{name}") for name in ORDER]
    return [(module.NAME, module.run) for module in modules]


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", steps())


if __name__ == "__main__":
    raise SystemExit(main())
