"""The command to run next, with all its arguments. No other module decides this.

The decision depends on how the last start ended and on what is not complete.
"""

from __future__ import annotations

import re
from typing import Any, Collection, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from bt_migrate.model.findings import FAILURE
from bt_migrate.model.outcomes import DIFFERS
from bt_migrate.model.resource_table import EXPERIMENTS
from bt_migrate.model.resources import BY_NAME, resources_by_phase
from bt_migrate.report.arguments import KEPT, only, values_of, without
from bt_migrate.report.display import plural
from bt_migrate.report.kept import EXTRA, compared, is_acceptable, only_kept
from bt_migrate.report.last_start import LastStart, is_part, last_start
from bt_migrate.report.needed import (
    UNRESOLVED,
    WAITS,
    deleted_kinds_needed,
    unreadable_kinds_needed,
)
from bt_migrate.report.refused import NOT_CREATED, smaller_rows, was_refused_before
from bt_migrate.state.find_run import VERIFY
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_files import RUN_FILE
from bt_migrate.state.run_record import RunRecord, read_run
from bt_migrate.state.wrong_attachments import read_wrong

DRIVER = "migrate-all"
VALIDATE = "validate"

# Options of a command that makes a plan; the command that carries out the plan goes without them.
ONLY_OF_PLAN = ("--dry-run", "--plan-out", "--fail-on-loss", "--new-run")
WINDOW = ("--created-after", "--created-before", "--window", "--tz", "--fill-gaps")
# Options that a run records, so that a resumed run does not need them.
KEPT_BY_RUN = ("--state-dir", "--new-run", *WINDOW)
# Options that may leave out the target of a reference.
NARROWING = ("--resources", "--projects", "--exclude-resources", "--exclude-projects")
SINCE_LAST = "--since-last"
EXCLUDE = "--exclude-resources"
BY_KIND = ("--resources", EXCLUDE)
VERSIONS = "--dataset-versions"
# the verification's word for what only the source has
MISSING = "missing"
# States of a run that the same command resumes.
RESUMABLE = ("interrupted", "failed", "stopped", "merged", "running")
OVERWRITES = "overwrites the objects that differ with the source's content"
AFTER_CURE = "after what is said above; also overwrites objects of these kinds that differ"
CREATES_AGAIN = (
    "creates again what was deleted there and is needed; overwrites objects of these kinds"
)
REFUSED_AGAIN = "did not arrive twice: accepts that, after a look; or fix the cause and run again"
ONCE_WRITABLE = "not before its folder can be written"
CONFLICT_WORD = "--on-conflict fail"
INVITATIONS = ("--invite-users", "--send-invites")
# The errors of a start that was not allowed to invite.
DECLINED = f"{INVITATIONS[0]}: declined"
NOT_ASKED = f"{INVITATIONS[0]}: there is no terminal"
DELETED = re.compile(r"destination: .* was deleted, or the key")
SHARDS = 4


def next_commands(run: RunDirectory, report: Mapping[str, Any]) -> List[str]:
    """Returns the command to run next, with a comment. `report` lacks only `next_commands`."""
    start = last_start(run.record)
    if run.record.undone:
        if "ended" in run.record.undone:
            return []
        return [start.line("undo", [str(run.path), "--yes"], "continues the undo")]
    if "--demo" in start.arguments:
        comment = "with your keys and URLs in .env (see .env.example)"
        return [start.line(VALIDATE, [], comment)]
    if run.record.copy_of:
        return [_after_read_only(start, run, report)]
    if start.command == VALIDATE:
        return [_after_validation(start, report["status"])]
    if start.command == VERIFY:
        return [_after_verification(start, run, report)]
    if run.record.dry_run:
        return [_after_plan(start, report["status"])]
    if report["status"] in RESUMABLE:
        return [_continued(start, run, report)]
    if report["status"] == "incomplete":
        return [_after_incomplete(start, run, report)]
    return [_after_success(start, run, report)]


def _after_plan(start: LastStart, status: str) -> str:
    if status in RESUMABLE:
        return start.again(start.arguments, "makes the plan again")
    arguments = without(start.arguments, ONLY_OF_PLAN)
    if start.command != VALIDATE:
        for path in values_of(start.arguments, "--plan-out")[-1:]:
            arguments += ["--plan", path]
    return start.again(arguments, "carries the plan out")


def again_as_plan(start: LastStart, path: str, until: str) -> str:
    """Returns the command that makes the plan of `--plan` again, up to a date if `until` is set."""
    arguments = [*without(start.arguments, ("--plan",)), "--dry-run", "--plan-out", path]
    if not until:
        return start.again(arguments, "makes the plan again")
    comment = "leaves out logs that are created later; they would change the plan again"
    return start.again([*arguments, "--created-before", until], comment)


def _after_validation(start: LastStart, status: str) -> str:
    if status in (*RESUMABLE, "incomplete"):
        return start.again(start.arguments, "once the problems above are fixed")
    arguments = [*without(start.arguments, ONLY_OF_PLAN), "--dry-run"]
    return start.line(DRIVER, arguments, "shows the plan; writes nothing to the destination")


def _continued(start: LastStart, run: RunDirectory, report: Mapping[str, Any]) -> str:
    """Returns the command that resumes the run."""
    is_merged = report["status"] == "merged"
    # The last start is one of a shard, which ran unattended.
    of_shard = ("--quiet",) if is_merged else ()
    arguments = [*without(start.arguments, (*KEPT_BY_RUN, *of_shard)), *_place(run)]
    if start.error.startswith(CONFLICT_WORD):
        arguments = [*without(arguments, ("--on-conflict",)), "--on-conflict", "update"]
        return start.again(arguments, "overwrites these objects; or with keep, leaves them")
    if start.error.startswith(DECLINED):
        comment = "invites nobody; what refers to these users is completed once they are members"
        return start.again(without(arguments, INVITATIONS), comment)
    if start.error.startswith(NOT_ASKED):
        return start.again([*arguments, "--yes"], f"or without {INVITATIONS[0]}, invites nobody")
    if DELETED.match(start.error):
        return _in_new_run(start, run, "moves all that is not there, in a new run")
    command = DRIVER if is_merged else start.command
    comment = "continues where it stopped"
    if report["status"] == "failed":
        comment = "once the problem above is fixed; continues where it stopped"
    return start.line(command, arguments, comment)


def _in_new_run(start: LastStart, run: RunDirectory, comment: str) -> str:
    """Returns the command that copies everything that is not there. Its run is the next to sync."""
    arguments = without(start.arguments, (SINCE_LAST, "--state-dir", "--new-run"))
    return start.again([*arguments, "--new-run", "--state-dir", str(run.path.parent)], comment)


def _after_incomplete(start: LastStart, run: RunDirectory, report: Mapping[str, Any]) -> str:
    comment = "once the problems above are fixed; only what is missing is copied"
    deleted = deleted_kinds_needed(report)
    if deleted and SINCE_LAST in start.options:
        arguments = _with_updates(start, _same_run(start, run), deleted)
        return start.again(arguments, CREATES_AGAIN)
    narrowing = _narrowing(report)
    narrow = only(start.options, narrowing)
    failed = {line["kind"] for line in report["failed"]}
    phase, kinds = _phase_before(start, run.record, report)
    left_out = {UNRESOLVED} if phase else {UNRESOLVED, WAITS}
    # The other failures of a run may be outside of the part that the start was for.
    if narrow and failed & left_out and (failed <= left_out or _is_part_of(start, run.record)):
        arguments = without(_same_run(start, run), ("--state-dir", *narrowing))
        arguments += ["--state-dir", str(run.path.parent)]
        comment = "moves the targets of the references too"
        return start.unsetting(narrowing).again(arguments, comment)
    refused = unreadable_kinds_needed(report)
    if refused:
        names = ",".join([*values_of(start.options, EXCLUDE), *refused])
        arguments = without(_same_run(start, run), (EXCLUDE, "--state-dir"))
        arguments += [EXCLUDE, names, "--state-dir", str(run.path.parent)]
        comment = "moves the rest without these; a key that may list them moves all"
        return start.again(arguments, comment)
    if phase:
        comment = "moves what failed, or what references wait for"
        arguments = list(start.arguments)
        if not kinds <= {*run.record.selection.resources}:
            arguments = without(arguments, BY_KIND)
            start = start.unsetting(BY_KIND)
        return start.line(phase, arguments, comment)
    return _uploading(start, run, report) or _after_failures(start, run, report, comment)


def _after_failures(
    start: LastStart, run: RunDirectory, report: Mapping[str, Any], comment: str
) -> str:
    """The same command, if it can help; otherwise one that overwrites or accepts."""
    conflicts = _resources_to_update(start, report)
    if not conflicts and was_refused_before(run, report):
        return _accept(start, run, REFUSED_AGAIN)
    limit = smaller_rows(run)
    if limit:
        start = start.setting("MIGRATION_MAX_ROW_BYTES", str(limit))
        return start.again(_same_run(start, run), "makes attachments of the fields of larger rows")
    if is_acceptable(run, report) and (run.record.round or not conflicts):
        return _accept(start, run, _why_accept(start, run.record))
    if conflicts:
        comment = AFTER_CURE if report["failed"] else OVERWRITES
    elif SINCE_LAST in start.arguments and only_kept(report) and MISSING in compared(report):
        # A sync reads what is new, and the source did not change these again.
        return _in_new_run(start, run, "copies what is missing, also what was deleted there")
    arguments = _with_updates(start, _same_run(start, run), conflicts)
    return start.again(arguments, comment)


def _why_accept(start: LastStart, record: RunRecord) -> str:
    if record.round:
        return "accepts what differs, after a look; --on-conflict update would overwrite it"
    if VERSIONS in start.options:
        return "accepts what differs; or undo this run, delete the datasets, run again"
    # Objects are updated already, and a copy overwrites no rows.
    return "accepts what differs, after a look; what you delete there is copied again"


def _narrowing(report: Mapping[str, Any]) -> Tuple[str, ...]:
    """Returns the options that may have left out what references wait for."""
    details = [
        item.get("detail", "")
        for item in report.get("findings", ())
        if item["kind"] in (UNRESOLVED, WAITS)
    ]
    # Of all objects, a window leaves out experiments only.
    in_window = any(EXPERIMENTS.name in detail for detail in details)
    return (*NARROWING, *WINDOW) if in_window else NARROWING


def _is_part_of(start: LastStart, record: RunRecord) -> bool:
    """Whether the start selects less than its run."""
    whole = {"--resources": record.selection.resources, "--projects": record.selection.projects}
    given = {flag: ",".join(values_of(start.options, flag)) for flag in whole}
    return any(names and {*names.split(",")} != {*whole[flag]} for flag, names in given.items())


def _phase_before(
    start: LastStart, record: RunRecord, report: Mapping[str, Any]
) -> Tuple[str, Set[str]]:
    """Returns the first phase that has to run before a start of a single phase can be complete.

    It moves what failed, or what references wait for: the kinds that are returned with it. "" if it
    is the phase of the start itself.
    """
    if start.command == DRIVER:
        return "", set()
    findings = report.get("findings", ())
    waits = [item["detail"].split(" or ") for item in findings if item["kind"] == WAITS]
    targets = {kind for kinds in waits for kind in kinds}
    kinds = {problem["resource"] for problem in report["problems"] if problem["outcome"] != DIFFERS}
    kinds.update(item["resource"] for item in findings if item.get("severity") == FAILURE)
    kinds.update(rows["kind"] for rows in report.get("rows", ()) if not rows["complete"])
    # The phase of its target completes what waits, so that phase comes first.
    phase = _first_open(targets, record) or _first_open(kinds, record)
    if phase is None or phase == start.command:
        return "", set()
    return phase, {*resources_by_phase()[phase]} & (targets | kinds)


def _first_open(kinds: Collection[str], record: RunRecord) -> Optional[str]:
    """Returns the first phase that is not done and moves one of these kinds."""
    open_phases = (
        phase
        for phase, resources in resources_by_phase().items()
        if phase not in record.phases_done and any(kind in kinds for kind in resources)
    )
    return next(open_phases, None)


def _same_run(start: LastStart, run: RunDirectory) -> List[str]:
    """Returns the arguments that continue the run if it is open, else those of a new run."""
    if _is_open(start, run.record):
        return [*without(start.arguments, KEPT_BY_RUN), *_place(run)]
    arguments = without(start.arguments, ("--new-run",))
    if run.record.relative_window:
        # Relative dates would mean another window tomorrow.
        arguments = [*without(arguments, WINDOW), *_window(run.record)]
    if run.path.name in " ".join(values_of(arguments, "--state-dir")):
        # A finished run would do nothing.
        arguments = [*without(arguments, ("--state-dir",)), "--state-dir", str(run.path.parent)]
    return arguments


def _is_open(start: LastStart, record: RunRecord) -> bool:
    if record.round or is_part(record):
        return True
    if start.command == DRIVER:
        return not record.finished
    return start.command not in record.phases_done


def _window(record: RunRecord) -> List[str]:
    arguments: List[str] = []
    for name, value in record.selection.window.items():
        if value:
            arguments += [f"--{name.replace('_', '-')}", value]
    return arguments


def _uploading(start: LastStart, run: RunDirectory, report: Mapping[str, Any]) -> str:
    """Returns the command that uploads attachments with wrong bytes again, "" if there are none.

    Those that were uploaded again before do not count.
    """
    wrong = sum(not item.uploads for item in read_wrong(run)) if compared(report) else 0
    if not wrong:
        return ""
    comment = f"uploads {plural(wrong, 'attachment')} again, whose bytes are wrong; then compares"
    arguments = [*only(start.arguments, KEPT), "--full"]
    if run.record.command == VERIFY:  # nothing was moved in its run
        return start.line(DRIVER, [*arguments, *only(start.arguments, ("--state-dir",))], comment)
    if start.command != VERIFY:
        others = ("--full", "--counts", "--sample", "--no-verify")
        arguments = [*without(start.arguments, (*KEPT_BY_RUN, *others)), "--full"]
    return start.line(DRIVER, [*arguments, *_place(run)], comment)


def _resources_to_update(start: LastStart, report: Mapping[str, Any]) -> List[str]:
    """Returns the resources with objects that differ, or whose name another one has there, if there
    are no other problems.

    Resources whose policy was `update` already are left out.
    """
    problems = report["problems"]
    failed = {line["kind"] for line in report["failed"]}
    if not failed <= {NOT_CREATED} or not all(map(_needs_update, problems)):
        return []
    policies = ",".join(values_of(start.options, "--on-conflict")).split(",")
    if "update" in policies:
        return []
    names: Set[str] = {problem["resource"] for problem in problems}
    return sorted(name for name in names if f"{name}=update" not in policies and name in BY_NAME)


def _needs_update(problem: Mapping[str, Any]) -> bool:
    policy = f"--on-conflict {problem['resource']}=update"
    return problem["outcome"] == DIFFERS or policy in (problem.get("reason") or "")


def _with_updates(
    start: LastStart, arguments: Sequence[str], resources: Sequence[str]
) -> List[str]:
    if not resources:
        return list(arguments)
    policies = values_of(start.options, "--on-conflict")
    policies += [f"{name}=update" for name in resources]
    return [*without(arguments, ("--on-conflict",)), "--on-conflict", ",".join(policies)]


def _after_verification(start: LastStart, run: RunDirectory, report: Mapping[str, Any]) -> str:
    result = report["verification"]
    if report["status"] in RESUMABLE or not result:
        return start.again(start.arguments, "compares again")
    selection = only(start.arguments, KEPT)
    if result["equal"]:
        if any(run.record.selection.window.values()):
            return start.line("report", [str(run.path)], "shows the result in a browser")
        arguments = [*selection, *_place_of_moves(start, run), SINCE_LAST]
        return start.line(DRIVER, arguments, "copies what is written to the source from now on")
    if result["arrived"] and not result.get("changed_since_copy"):
        comment = "accepts what is extra, after a look; or delete it, then compare again"
        return _accept(start, run, comment)
    others = [item for item in result["differences"] if not _is_copied_by_sync(item)]
    updates = _objects_that_differ(others)
    has_lost = any(item["outcome"] not in (DIFFERS, EXTRA) for item in others)
    is_moved = run.record.command != VERIFY and not any(run.record.selection.window.values())
    if len(others) < len(result["differences"]) and not has_lost and is_moved:
        arguments = _with_updates(start, [*selection, *_place(run), SINCE_LAST], updates)
        return start.line(DRIVER, arguments, "copies what changed in the source since the copy")
    upload = _uploading(start, run, report)
    if upload and not has_lost:
        return upload
    if others and not has_lost and not updates:
        # A copy does not overwrite rows.
        comment = "accepts what differs, after a look; what you delete there, migrate-all copies"
        return _accept(start, run, comment)
    arguments = [*selection, *_window(run.record), "--state-dir", str(run.path.parent)]
    comment = "copies what is missing, then compares again"
    return start.line(DRIVER, _with_updates(start, arguments, updates), comment)


def _after_read_only(start: LastStart, run: RunDirectory, report: Mapping[str, Any]) -> str:
    """Returns the command after a comparison by means of a copy, which is of no use to it."""
    result = report["verification"]
    if result and result["equal"] and not any(run.record.selection.window.values()):
        arguments = [*only(start.arguments, KEPT), "--state-dir", run.record.copy_of, SINCE_LAST]
        return start.line(DRIVER, arguments, f"{ONCE_WRITABLE}; copies what is new in the source")
    return start.again(start.arguments, f"{ONCE_WRITABLE}; compares again and names what to do")


def _is_copied_by_sync(difference: Mapping[str, Any]) -> bool:
    """Whether the source wrote the row after the copy. What it deleted, a sync may leave."""
    return bool(difference.get("changed_since_copy")) and difference["outcome"] != EXTRA


def _objects_that_differ(differences: Iterable[Mapping[str, Any]]) -> List[str]:
    """Returns the resources with objects that differ; rows and their counts are left out."""
    return sorted(
        {
            difference["resource"]
            for difference in differences
            if difference["outcome"] == DIFFERS
            and not difference.get("row")
            and difference["resource"] in BY_NAME
        }
    )


def after_accepting(run: RunDirectory) -> List[str]:
    """Returns the command to run after differences were accepted."""
    start = last_start(run.record)
    if start.command == VERIFY:
        return [start.again(start.arguments, "compares again")]
    return [start.again(_same_run(start, run), "ends with 0 if nothing else is open")]


def _accept(start: LastStart, run: RunDirectory, comment: str) -> str:
    return start.line("accept", [str(run.path), "--all"], comment)


def _place_of_moves(start: LastStart, run: RunDirectory) -> List[str]:
    """Arguments that name the run of the move.

    A verification without such a run has a run of its own, in which nothing was moved.
    """
    if run.record.command != VERIFY:
        return _place(run)
    return only(start.arguments, ("--state-dir",))


def _after_success(start: LastStart, run: RunDirectory, report: Mapping[str, Any]) -> str:
    record = run.record
    place = _place(run)
    if record.shard is not None:
        return _join(start, run)
    if record.selection.part is not None:
        arguments = [*only(start.arguments, KEPT), "--shards", str(SHARDS), *place]
        return start.line("plan-shards", arguments, f"divides the rows among {SHARDS} processes")
    open_phase = _open_phase(start, record)
    if open_phase:
        return start.line(open_phase, start.arguments, "the next phase")
    has_window = any(record.selection.window.values())
    if report["verification"] and start.command == DRIVER and not has_window:
        # A plan was carried out once the run has ended.
        done = ("--plan", SINCE_LAST)
        arguments = [*without(start.arguments, (*KEPT_BY_RUN, *done)), *place]
        comment = "copies what is written to the source from now on"
        return start.again([*arguments, SINCE_LAST], comment)
    selection = only(start.arguments, KEPT)
    return start.line(VERIFY, [*selection, *place], "compares both organizations")


def _open_phase(start: LastStart, record: RunRecord) -> Optional[str]:
    """Returns a phase of the selection that is not done, after a start of a single phase."""
    if start.command == DRIVER or record.selection.resources == []:
        return None
    for name in resources_by_phase():
        if _is_selected(name, record) and name not in record.phases_done:
            return name
    return None


def _is_selected(phase: str, record: RunRecord) -> bool:
    """Whether the run moves a resource of the phase."""
    return bool({*resources_by_phase()[phase]} & {*record.selection.resources})


def _join(start: LastStart, run: RunDirectory) -> str:
    """Returns the command that merges this run with the runs of the other shards."""
    root = run.path.parent.parent
    folders = sorted({path.parent.parent for path in root.glob(f"*/*/{RUN_FILE}")})
    parts = [
        folder
        for folder in folders
        if any(is_part(read_run(path)) for path in folder.glob(f"*/{RUN_FILE}"))
    ]
    arguments = [*map(str, parts), "--state-dir", str(root / "whole")]
    return start.line("merge-runs", arguments, "joins the runs once all shards are done")


def _place(run: RunDirectory) -> List[str]:
    return ["--state-dir", str(run.path)]
