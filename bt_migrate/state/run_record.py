"""`run.json`: what a run is made for and how far it is. One record, one reader, one writer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from bt_migrate.model.date_windows import instant
from bt_migrate.model.run_identity import RunSide, Selection, Shard
from bt_migrate.state.files import FORMAT, damaged, read_record, write_json
from bt_migrate.state.finding_shape import check_finding
from bt_migrate.state.folder_names import is_folder_name
from bt_migrate.state.records import ShapeError, check_part, json_of


@dataclass
class Session:
    """One start of a program in the run."""

    started: str
    command: str
    arguments: List[str] = field(default_factory=list)
    ended: Optional[str] = None
    error: Optional[str] = None
    seconds: float = 0.0
    # Unix seconds of the destination's clock; None if the process was killed before it knew.
    wrote_until: Optional[float] = None
    rows: int = 0
    phases: Dict[str, float] = field(default_factory=dict)  # phase -> seconds
    prefix: str = "bin/"  # of the programs: "bt-" where the package is installed
    refused: str = ""  # digest of what the destination refused, see report/refused.py
    starts: int = 1  # how many starts of the command this one is the sum of


@dataclass
class ShownFacets:
    """Where one side shows the facets of one kind of rows; see api/capabilities.py."""

    side: str
    kind: str
    shown: str
    objects: List[str] = field(default_factory=list)


@dataclass
class Identity:
    """What a run is made for; compared at each start. Holds no key."""

    source: RunSide
    dest: RunSide
    selection: Selection
    dry_run: bool
    shard: Optional[Shard] = None
    relative_window: str = ""  # the window as the user wrote it, if it is relative


@dataclass
class RunRecord(Identity):
    """The content of run.json."""

    command: str = ""
    created: str = ""
    phases_done: List[str] = field(default_factory=list)
    finished: bool = False
    sessions: List[Session] = field(default_factory=list)
    # of the last start: variable -> text of each setting that has not its default, without secrets
    settings: Dict[str, str] = field(default_factory=dict)
    folders: Dict[str, str] = field(default_factory=dict)  # project -> its folder
    # Source id of a project -> the name by which the run has its files.
    project_names: Dict[str, str] = field(default_factory=dict)
    round: int = 0  # number of the sync; 0 while everything is copied
    marks: Dict[str, Dict[str, int]] = field(default_factory=dict)  # see sync_marks
    source_time: Optional[float] = None  # unix seconds of the source's clock at the first start
    reads_groups: List[str] = field(default_factory=list)  # sides that read several objects at once
    facets: List[ShownFacets] = field(default_factory=list)
    wrote: bool = False  # whether a write to the destination was begun
    # whether references wait for objects, or a start that moves objects has not come to its end
    waiting: bool = False
    # resource -> patterns of fields that the data plane of the destination does not know, and of
    # those that it has known since
    fields_not_taken: Dict[str, List[str]] = field(default_factory=dict)
    fields_taken: Dict[str, List[str]] = field(default_factory=dict)
    # kind of rows -> how many rows can be missing before one that a start sent: see
    # rows/unrecorded.py
    in_flight: Dict[str, int] = field(default_factory=dict)
    gone: Dict[str, List[str]] = field(default_factory=dict)  # kind -> objects that disappeared
    # resource whose lists were read -> owners without, because this key may not read their list
    # ("": the whole list): nothing of them is expected
    not_listed: Dict[str, List[str]] = field(default_factory=dict)
    window_gaps: List[Dict[str, Any]] = field(default_factory=list)
    # what the sync before number `kept_round` found and did not report, of rows that this one does
    # not read again
    kept_findings: List[Dict[str, Any]] = field(default_factory=list)
    kept_round: int = 0
    validation: Optional[Dict[str, Any]] = None
    row_plans: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    estimate: Optional[Dict[str, Any]] = None
    plan: str = ""  # digest of the plan that is carried out
    verification: Optional[Dict[str, Any]] = None
    # The last comparison found something missing or different: the next sync compares again.
    refuted: bool = False
    lag: Optional[Dict[str, Any]] = None
    # source id of a user -> whether the destination confirmed the invitation
    invited: Dict[str, bool] = field(default_factory=dict)
    # --user-map: source id of a user -> id in the destination, "" if it does not list the user
    user_map: Dict[str, str] = field(default_factory=dict)
    undone: Optional[Dict[str, Any]] = None
    merged: List[str] = field(default_factory=list)  # the runs that this one was joined from
    copy_of: str = ""  # the run that could not be written, of which this is a copy


# -- parts of the record that are kept as JSON: the fields on which the program relies


@dataclass
class CountedStream:
    id: str
    project: str
    name: str
    rows: Optional[int]


@dataclass
class Validation:
    streams: Dict[str, List[CountedStream]]
    findings: List[Dict[str, Any]] = field(default_factory=list)


@dataclass
class Lag:
    since: str
    rows: Optional[int]
    oldest_seconds: Optional[int]


@dataclass
class Verification:
    text: str
    equal: bool
    folder: str


def read_run(path: Path) -> RunRecord:
    """The content of a run.json. Raises StateError naming the file."""
    record = read_record(path, RunRecord)
    try:
        _check_parts(record)
    except (ShapeError, ValueError) as error:
        raise damaged(path, error) from None
    return record


def _check_parts(record: RunRecord) -> None:
    """Raises ShapeError, or ValueError for what is not a date."""
    parts = (
        (Validation, "validation"),
        (Verification, "verification"),
        (Lag, "lag"),
    )
    for kind, name in parts:
        value = getattr(record, name)
        if value is not None:
            check_part(kind, value, name)
    for folder in record.folders.values():
        if not is_folder_name(folder):
            raise ShapeError(f"{folder[:40]!r} is not the name of a folder")
    validation = record.validation or {}
    for item in [*validation.get("findings", []), *record.window_gaps, *record.kept_findings]:
        check_finding(item)
    for text in (
        record.created,
        record.selection.created_after,
        record.selection.created_before,
    ):
        if text:
            instant(text)


def write_run(path: Path, record: RunRecord) -> None:
    """Replace the file as a whole. Raises StateError."""
    write_json(path, {"format": FORMAT, **_always(record), **json_of(record)})


def _always(record: RunRecord) -> Mapping[str, Any]:
    """Fields that are written also while they are empty, for people who look into the file."""
    return {"phases_done": [], "finished": False, "sessions": [], "folders": {}}
