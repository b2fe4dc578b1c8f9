"""`status.json`: what the process that works on a run reports of itself once a second."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

from bt_migrate.errors import StateError
from bt_migrate.model.date_windows import instant
from bt_migrate.state.files import FORMAT
from bt_migrate.state.records import ShapeError, check_part
from bt_migrate.state.run_files import STATUS_FILE


@dataclass
class StatusStream:
    kind: str
    project: str
    name: str
    source_id: str
    done: int
    rows_per_second: float


@dataclass
class StatusSide:
    in_flight: int
    max_concurrent: int
    requests_per_second: Optional[float]
    requests: int
    retries: int
    rate_limited: int
    started_with: Optional[int] = None  # --max-concurrent of the start


@dataclass
class StatusWork:
    """What the phase counts, such as "rows" or "objects deleted"."""

    unit: str
    done: int
    total: Optional[int]
    per_second: float
    seconds_left: Optional[int]


@dataclass
class StatusWait:
    """Why the process waits. `until` is the date at which the wait ends."""

    reason: str
    detail: str
    until: str


@dataclass
class Status:
    """The fields on which the readers rely; the writer may add others."""

    format: int
    pid: int
    host: str
    started: str
    state: str
    updated: str
    paused: bool
    phase: str = ""
    phase_number: List[int] = field(default_factory=lambda: [0, 0])
    stopping: str = ""
    rows_per_second: float = 0.0
    streams: List[StatusStream] = field(default_factory=list)
    parts: List[StatusStream] = field(default_factory=list)  # open parts of `work`
    sides: Dict[str, StatusSide] = field(default_factory=dict)
    last_error: str = ""
    work: Optional[StatusWork] = None
    wait: Optional[StatusWait] = None


def read_status(run: Path) -> Dict[str, Any]:
    """What the last process of a run reported, {} if there was none. Raises StateError."""
    path = run / STATUS_FILE
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        check_part(Status, value)
        if value["format"] != FORMAT:
            raise ShapeError(f"its format is {value['format']}")
        if len(value.get("phase_number", (0, 0))) != 2:
            raise ShapeError("phase_number is not two numbers")
        instant(value["updated"])
        if value.get("wait"):
            instant(value["wait"]["until"])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise StateError(
            f"{path}: is damaged or of another version ({error}); remove it: the next start writes"
            " it again"
        ) from None
    return dict(value)
