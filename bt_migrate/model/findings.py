"""Findings: what a person must know, one record each, with a severity and what to do next. Pure."""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple

# to be done by hand
ACTION = "action"
# cannot be carried
LOSS = "loss"
# should have arrived and did not
FAILURE = "failure"
# differs, and a person accepted it
ACCEPTED = "accepted"


# kind of a list that this key may not read: nothing that it should see is missing
NOT_LISTED = "not_listed"
# kind of a list that should not have been refused: every phase stays open
LIST_REFUSED = "list_refused"
# kind of a reference into such a list, or into one that is only outside of the key's rights
TARGET_LIST_REFUSED = "target_list_refused"


class Kind(NamedTuple):
    """A kind of finding."""

    severity: str
    # What it means.
    about: str
    # What to do, unless the record says more.
    next: str
    # Part of the source is left unless a person moves it. With the losses, these kinds are the loss
    # list of a plan.
    left_behind: bool = False
    # All findings of the kind in one line; see `Group` in report/actions.py for the fields.
    summary: str = ""


# Only a failure makes a run unsuccessful.
KINDS: Mapping[str, Kind] = {
    "user_without_counterpart": Kind(
        ACTION,
        "a user of the source is not a member of the destination; the reference was left out",
        "invite the user, or add --invite-users, then run the same command again",
        True,
        "invite {users:user}, then run again{waiting}: {emails}",
    ),
    "secret_to_enter": Kind(
        ACTION,
        "the value of a secret must be entered",
        "enter the value in the destination",
        True,
        "enter {objects:secret value}: {names}",
    ),
    "not_readable": Kind(
        ACTION,
        "cannot be read through the API; move it by hand",
        "create it again in the destination from its original, such as its repository",
        True,
        "create by hand (not readable): {things}",
    ),
    "not_movable": Kind(
        ACTION,
        "the API cannot move this kind of object",
        "create it by hand in the destination",
        True,
        "create by hand: {things}",
    ),
    "key_to_make": Kind(
        ACTION,
        "an API key is valid in its own organization only",
        "create a new API key by hand",
        False,
        "let the owners create new API keys: {names}",
    ),
    "made_private": Kind(
        ACTION,
        "is public in the source and private in the destination",
        "make it public by hand if it should be",
        True,
        "make public, if they should be: {things}",
    ),
    "reference_to_unmovable": Kind(
        ACTION,
        "a reference to something that cannot be moved was left out",
        "add the reference by hand once its target exists",
        True,
        "add {refs:reference} to what cannot be moved, in {names}",
    ),
    "project_not_selected": Kind(
        ACTION,
        "a project of a project group is not selected; the group was created without it",
        "select that project too, and run the same command again: it is then added to the group",
        False,
        "select the projects that {names} also contain: {details}",
    ),
    "ready_to_activate": Kind(
        ACTION,
        "an automation acts outside of Braintrust, or deletes; it is created with --activate only",
        "run bin/migrate-settings --activate with the words under detail",
        False,
        "ready for migrate-settings --activate {words}: {things}",
    ),
    "retention_deletes": Kind(
        ACTION,
        "a retention rule deletes rows at once, because it counts from their original date",
        "to keep these rows, do not activate the rule, or give it more days in the source first",
        False,
        "decide about retention, which deletes {rows:row} at once because of their age: {names}",
    ),
    "retention_not_counted": Kind(
        ACTION,
        "a retention rule deletes rows at once that are older than it allows; how many cannot be"
        " counted",
        "to keep old rows, do not activate the rule, or give it more days in the source first",
        False,
        "decide about retention; how many rows it deletes at once cannot be counted: {names}",
    ),
    "source_id_in_text": Kind(
        ACTION,
        "a text mentions an id of the source; it was left as it is",
        "check whether the text needs the new id",
        False,
        "check texts that mention ids of the source ({where}): {names}",
    ),
    "waits": Kind(
        FAILURE,
        "a reference waits for an object that is not in the destination yet",
        "move that object too; the reference is added then",
        False,
        "move what references wait for ({where}): {names}",
    ),
    "external_attachment": Kind(
        ACTION,
        "an attachment is in your own bucket; the destination needs access to it",
        "give the destination read access to the bucket",
        False,
        "give the destination access to your attachment buckets ({rows:row})",
    ),
    "window_gap": Kind(
        ACTION,
        "no run covered this period before the date window",
        "run the same command with --fill-gaps",
        False,
        "run again with --fill-gaps; no run covered {details}",
    ),
    "absent_from_source": Kind(
        ACTION,
        "was not listed by the source; it counts as deleted if it is not listed ten minutes later",
        "run the same command again after ten minutes",
        False,
        "sync again in ten minutes: the source did not list {things}",
    ),
    "gone_from_source": Kind(
        ACTION,
        "was deleted in the source; the object in the destination was kept",
        "delete it in the destination by hand if it should go",
        False,
        "delete by hand, if they should go; deleted in the source: {things}",
    ),
    "deleted_there": Kind(
        ACTION,
        "was deleted in the destination, and was not created again",
        "run again with --on-conflict update for its kind to create it again",
        False,
        "run again with --on-conflict update to create again, deleted in the destination: {things}",
    ),
    "gone_row_waits": Kind(
        ACTION,
        "rows are gone from the source; a sync ten minutes later deletes them if still gone",
        "run the same command again after ten minutes",
        False,
        "sync again in ten minutes to delete {rows:row} missing in the source",
    ),
    "gone_row_kept": Kind(
        ACTION,
        "rows are gone from the source, but were edited in the destination; they were kept",
        "delete the rows by hand if they should go",
        False,
        "delete by hand, if they should go: {rows:row} that were deleted in the source, but edited"
        " in the destination",
    ),
    "version_pin_removed": Kind(
        LOSS,
        "a reference was pinned to a version that exists in the source only; it now follows the"
        " latest version",
        "pin the version again if it must not move on",
        False,
        "pinned versions; references follow the latest version ({where})",
    ),
    "state_not_there": Kind(
        LOSS,
        "a snapshot of an earlier state of a dataset was not created: the destination does not"
        " have that state",
        "to move it, use --dataset-versions with a destination that does not have the dataset yet",
        True,
        "snapshots of earlier states of datasets: {things}",
    ),
    "dataset_version_left": Kind(
        LOSS,
        "an earlier state of a dataset could not be written to the destination",
        "see the detail; references to that state now mean the latest state",
        False,
        "earlier states of datasets, in {names}: {details}",
    ),
    "version_not_moved": Kind(
        LOSS,
        "an environment is assigned to an earlier version, which was not moved",
        "run again with --history all in an empty destination, or assign the environment by hand",
        True,
        "environments that are assigned to earlier versions: {things}: {details}",
    ),
    "earlier_versions": Kind(
        LOSS,
        "only the latest version of a definition moves",
        "keep the source to look up earlier versions",
        False,
        "earlier versions of {things}",
    ),
    "field_not_writable": Kind(
        LOSS,
        "a field cannot be written through the API",
        "set the field by hand if it matters",
        False,
        "fields that the API cannot write ({where}): {names}",
    ),
    "order_not_kept": Kind(
        LOSS,
        "the destination shows the objects in another order; no endpoint takes a position",
        "drag them into their order in the settings of the project",
        False,
        "the order of scores or tags, from {things} on",
    ),
    "new_field": Kind(
        LOSS,
        "objects have a field that this version does not know; it was not carried",
        "use a newer version of this tool; set the field by hand if it matters",
        False,
        "fields that this version does not know: {details}",
    ),
    "field_not_taken": Kind(
        LOSS,
        "the destination does not take a field; the object was written without it, and behaves as"
        " if it were not set",
        "upgrade the data plane of the destination, then run the same command again",
        False,
        "fields that the destination does not take ({where}): {names}",
    ),
    "kind_not_known": Kind(
        LOSS,
        "the server of the destination does not have this kind of object; it was not moved",
        "upgrade the data plane of the destination, then run the same command again",
        False,
        "kinds that the server of the destination does not have: {things}",
    ),
    "kind_not_offered": Kind(
        FAILURE,
        "the server of the destination does not offer a kind of object that was asked for, by name"
        " or by an option; it was not moved",
        "upgrade the data plane of the destination, or leave the kind out with --exclude-resources,"
        " then run the same command again",
        False,
        "not offered by this server: {things}; upgrade the destination's data plane, or leave out"
        " {kinds} with --exclude-resources",
    ),
    "bundles_not_offered": Kind(
        FAILURE,
        "the server of the destination does not offer uploads of code bundles (--bundles)",
        "push the function again from its repository, then run the same command again; or leave"
        " --bundles out",
        False,
        "not offered by this server: uploads of code bundles (--bundles); push {things} from the"
        " repository, then run again",
    ),
    "invitations_not_offered": Kind(
        FAILURE,
        "the server of the destination does not offer invitations (--invite-users)",
        "invite the users by hand, then run the same command again; or leave --invite-users out",
        False,
        "not offered by this server: invitations (--invite-users); invite {names} by hand, then"
        " run again",
    ),
    "attachment_left": Kind(
        LOSS,
        "attachments stay in the source, as requested",
        "run again without --no-attachments to copy them",
        False,
        "attachments that stay in the source, as requested ({where})",
    ),
    "field_made_attachment": Kind(
        LOSS,
        "rows above the size limit: their largest fields became JSON attachments, which cannot be"
        " searched",
        "nothing, unless these fields should be searchable",
        False,
        "full-text search in {rows:row} above the size limit; large fields became attachments",
    ),
    "row_field_not_carried": Kind(
        LOSS,
        "a field of rows cannot be written through the API",
        "keep the source, or an export of it, to look up the field",
        False,
        "fields of rows that the API cannot write ({where})",
    ),
    "row_repeated": Kind(
        LOSS,
        "the source shows two versions of a row; the one of the last transaction was moved",
        "nothing; the older version was replaced in the source",
        False,
        "older versions of {rows:row} that the source still shows, in {names}",
    ),
    "attachment_missing": Kind(
        LOSS,
        "the source does not have the bytes of an attachment; the reference still names the source",
        "nothing, unless the bytes are kept elsewhere",
        False,
        "attachments whose bytes the source does not have ({where})",
    ),
    NOT_LISTED: Kind(
        LOSS,
        "the source does not list a kind of object; none of it was moved",
        "if the source has such objects, use a key that may list them",
        False,
        "kinds that the source does not list: {names}",
    ),
    "lost_at_source": Kind(
        LOSS,
        "the target of a reference no longer exists in the source; the reference was left out",
        "nothing, unless the target exists and the key of the source may not read it",
        False,
        "references whose target no longer exists in the source ({where}): {names}",
    ),
    LIST_REFUSED: Kind(
        FAILURE,
        "an organization refuses to list objects; they were not moved",
        "use a key that may list them, or fix the cause shown under detail, then run the same"
        " command again",
        False,
        "lists refused: {names}: {details}",
    ),
    "unresolved_reference": Kind(
        FAILURE,
        "the target of a reference was not found; the reference was left out",
        "move its target too and run again, or add the reference by hand",
        False,
        "references without a target ({where}), in {names}; move the targets too",
    ),
    TARGET_LIST_REFUSED: Kind(
        FAILURE,
        "the target of a reference is in a list that an organization refuses; the reference was"
        " left out",
        "use a key that may read the list shown under detail, or leave its kind out with"
        " --exclude-resources, then run the same command again",
        False,
        "references into a refused list ({where}), in {names}: {details}; use a key that may read"
        " it, or leave its kind out with --exclude-resources",
    ),
    "attachment_not_copied": Kind(
        FAILURE,
        "the bytes of an attachment were not copied; the reference still names the source",
        "fix the cause shown under detail, then run the same command again",
        False,
        "attachments not copied ({where}): {details}",
    ),
    "not_created": Kind(
        FAILURE,
        "could not be created or updated",
        "fix the cause shown under detail, then run the same command again",
        False,
        "not created or updated: {things}: {details}",
    ),
    "not_invited": Kind(
        FAILURE,
        "users could not be invited to the destination",
        "use a key that may invite members, or invite the users by hand, then run the same command"
        " again",
        False,
        "{names} not invited: {details}",
    ),
    "reference_not_added": Kind(
        FAILURE,
        "a reference could not be added in the second pass",
        "fix the cause shown under detail, then run the same command again",
        False,
        "references not added in the second pass ({where}), in {names}: {details}",
    ),
    "row_refused": Kind(
        FAILURE,
        "the destination refused rows",
        "see the _failed.jsonl file of the stream, then run the same command again",
        False,
        "{rows:row} refused by the destination, of {names}; see the _failed.jsonl files",
    ),
    "row_not_shown": Kind(
        FAILURE,
        "the destination confirmed rows twice and does not show them",
        "run the same command again, which sends them again; accept with bin/accept that they are"
        " missing",
        False,
        "{rows:row} confirmed by the destination and not shown there, of {names}",
    ),
    "row_not_deleted": Kind(
        FAILURE,
        "the destination confirmed that rows were deleted and still shows them",
        "run the same command again, which deletes them again; accept with bin/accept that they"
        " stay",
        False,
        "{rows:row} still shown by the destination, which confirmed that they were deleted, of"
        " {names}",
    ),
    "comment_refused": Kind(
        FAILURE,
        "the destination refused comments of rows",
        "add the comments by hand",
        False,
        "comments of {rows:row} refused by the destination, of {names}",
    ),
    "row_differs": Kind(
        FAILURE,
        "rows exist in the destination with other content; they were left as they are",
        "delete the wrong rows in the destination and run the same command again, or accept the"
        " difference with bin/accept",
        False,
        "{rows:row} exist with other content and were left, in {names}",
    ),
    "accepted_difference": Kind(
        ACCEPTED,
        "is not as in the source, and a person accepted that",
        "nothing; bin/accept --remove reports it as a difference again",
        False,
        "{objects:object} not as in the source, and accepted: {names}",
    ),
    "too_many_deletes": Kind(
        FAILURE,
        "more rows are gone from the source than --max-deletes allows; none was deleted",
        "check why, then run again with a higher --max-deletes",
        False,
        "more rows are gone from the source than --max-deletes allows, in {names}; check why, then"
        " run again with a higher --max-deletes",
    ),
    "stream_behind": Kind(
        FAILURE,
        "rows written since the last sync were not read: the source did not list their object, or"
        " shows no rows of an object that had rows",
        "run the same command again; an object that is still not listed ten minutes later, or rows"
        " that are still not shown then, count as deleted",
        False,
        "rows written since the last sync not read, of {things}: {details}",
    ),
    "stream_failed": Kind(
        FAILURE,
        "copying the rows of an object stopped early",
        "fix the cause shown under detail, then run the same command again",
        False,
        "copying stopped early for {things}: {details}",
    ),
}


# The end of the detail of user_without_counterpart; before it is the user's e-mail address or id.
NOT_A_MEMBER = " is not a member of the destination organization"


def finding(kind: str, **facts: Any) -> Dict[str, Any]:
    """Returns {kind, severity, about, resource, id, name, project, next} and what else is known:
    path, ref, detail, count, rows.

    Empty facts are left out. A row that a finding of the kind counts already adds no `rows`.
    """
    row = KINDS[kind]
    record = {"kind": kind, "severity": row.severity, "about": row.about, "next": row.next, **facts}
    kept = (name for name, value in record.items() if value not in (None, "", 0) or name == "rows")
    return {name: record[name] for name in kept}


def is_lost(record: Mapping[str, Any]) -> bool:
    """Whether the finding belongs to the loss list of a plan."""
    return record["severity"] == LOSS or KINDS[record["kind"]].left_behind


# What the API cannot list, so that it is not known whether there is any.
UNSEEN = (
    "playgrounds (only views and ACLs that point at them)",
    "audit history",
    "classifications of rows beyond the sampled ones",
)
