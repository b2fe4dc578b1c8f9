"""What a person must know: one record a finding, with its severity and what to do next. Pure."""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple

ACTION, LOSS, FAILURE = "action", "loss", "failure"


class Kind(NamedTuple):
    """A kind of finding: its severity, what it says, and what to do next unless the record knows better.

    `left_behind`: something of the source stays there unless a person brings it; with the losses these are a plan's loss list.
    """

    severity: str
    about: str
    next: str
    left_behind: bool = False


# Only a failure makes a run unsuccessful.
KINDS: Mapping[str, Kind] = {
    "secret_to_enter": Kind(
        ACTION, "a secret value has to be typed in", "type the value in, in the destination", True
    ),
    "not_readable": Kind(
        ACTION,
        "cannot be read through the API; bring it over by hand",
        "make it again from where it was made",
        True,
    ),
    "not_movable": Kind(
        ACTION,
        "a kind of object that the API lets nobody move",
        "make it by hand in the destination",
        True,
    ),
    "key_to_make": Kind(ACTION, "an API key belongs to its organization", "make a new one by hand"),
    "made_private": Kind(
        ACTION,
        "was public in the source and is private in the destination",
        "make it public by hand if it should be",
        True,
    ),
    "user_without_counterpart": Kind(
        ACTION,
        "a user of the source is not in the destination; left out",
        "invite the user, then run again",
        True,
    ),
    "reference_to_unmovable": Kind(
        ACTION,
        "a reference to something that cannot be moved was left out",
        "add it by hand once its target is there",
        True,
    ),
    "source_id_in_text": Kind(
        ACTION,
        "a text contains an id of the source; left as it is",
        "look whether the text needs the new id",
    ),
    "waits": Kind(
        ACTION,
        "a reference waits for an object that is not there yet",
        "move that object too: the reference is added then",
    ),
    "external_attachment": Kind(
        ACTION,
        "an attachment lies in a bucket of yours; the destination needs access to it",
        "give the destination read access to the bucket",
    ),
    "window_gap": Kind(
        ACTION,
        "a stretch of time before this date window was taken by no window",
        "run the same command with --fill-gaps",
    ),
    "gone_from_source": Kind(
        ACTION,
        "is gone from the source; its counterpart stays",
        "delete it in the destination by hand if it is to go",
    ),
    "deleted_there": Kind(
        ACTION,
        "was deleted in the destination; not made again",
        "run again with --on-conflict update for its kind to have it made again",
    ),
    "gone_row_kept": Kind(
        ACTION,
        "rows are not in the source and were written to in the destination; kept",
        "delete them by hand if they are to go",
    ),
    "version_pin_removed": Kind(
        LOSS,
        "a version named a transaction of the source; the reference now means the latest version",
        "pin the version anew if it must not move on",
    ),
    "earlier_versions": Kind(
        LOSS,
        "only the latest version of a definition moves",
        "keep the source to look earlier ones up",
    ),
    "field_not_writable": Kind(
        LOSS, "a field cannot be written through the API", "set it by hand if it matters"
    ),
    "attachment_left": Kind(
        LOSS,
        "attachments were left in the source as asked for",
        "run again without --no-attachments to bring them",
    ),
    "field_made_attachment": Kind(
        LOSS,
        "rows above the size limit: their largest fields became JSON attachments, which are not searched",
        "nothing, unless these fields are to be searched",
    ),
    "row_field_not_carried": Kind(
        LOSS,
        "a field of rows cannot be written through the API",
        "keep the source, or an export of it, to look it up",
    ),
    "attachment_missing": Kind(
        LOSS,
        "the source does not hold the bytes of an attachment; the reference still names the source's",
        "nothing, unless the bytes are kept elsewhere",
    ),
    "not_listed": Kind(
        LOSS,
        "the source does not list a kind of object; none of it was moved",
        "if there is any, use a key that may list it",
    ),
    "unresolved_reference": Kind(
        FAILURE,
        "a reference could not be resolved and was left out",
        "move its target too and run again, or add the reference by hand",
    ),
    "attachment_not_copied": Kind(
        FAILURE,
        "the bytes of an attachment were not copied; the reference still names the source's",
        "mend the cause in the detail, then run again",
    ),
    "not_created": Kind(
        FAILURE, "could not be created or updated", "mend the cause in the detail, then run again"
    ),
    "reference_not_added": Kind(
        FAILURE,
        "a reference could not be added afterwards",
        "mend the cause in the detail, then run again",
    ),
    "row_refused": Kind(
        FAILURE,
        "rows were refused by the destination",
        "see the _failed.jsonl of the stream, then run again",
    ),
    "comment_refused": Kind(
        FAILURE, "comments of rows were refused by the destination", "add them by hand"
    ),
    "row_differs": Kind(
        FAILURE,
        "rows exist with other content; left alone",
        "delete the destination's rows that are wrong, then run again",
    ),
    "too_many_deletes": Kind(
        FAILURE,
        "more rows are gone from the source than --max-deletes allows; none was deleted",
        "look why, then run again with --yes",
    ),
    "stream_behind": Kind(
        FAILURE,
        "rows that were written since the last sync were not read: their object was not listed",
        "run the same command again; an object that is still not listed ten minutes later counts as deleted",
    ),
    "stream_failed": Kind(
        FAILURE,
        "the rows of an object could not be copied to the end",
        "mend the cause in the detail, run the same command again",
    ),
}


def finding(kind: str, **facts: Any) -> Dict[str, Any]:
    """{kind, severity, about, resource, id, name, project, path?, ref?, detail?, count?, next}; empty facts are left out."""
    severity, about, following, _ = KINDS[kind]
    record = {"kind": kind, "severity": severity, "about": about, "next": following, **facts}
    return {name: value for name, value in record.items() if value not in (None, "", 0)}


def is_lost(record: Mapping[str, Any]) -> bool:
    """Whether it belongs into a plan's loss list."""
    return record["severity"] == LOSS or KINDS[record["kind"]].left_behind


# What cannot even be listed, so that nobody knows whether there is any.
UNSEEN = (
    "playgrounds, but for views and ACLs on them",
    "audit history",
    "classifications of rows beyond the sampled ones",
)
