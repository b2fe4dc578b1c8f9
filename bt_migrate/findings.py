"""What a person must know: one record a finding, with its severity and what to do next. Pure."""

from __future__ import annotations

from typing import Any, Dict, Mapping

ACTION, LOSS, FAILURE = "action", "loss", "failure"

# kind -> (severity, sentence). Only a failure makes a run unsuccessful.
KINDS: Mapping[str, tuple] = {
    "secret_to_enter": (ACTION, "a secret value has to be typed in"),
    "not_readable": (ACTION, "cannot be read through the API; bring it over by hand"),
    "made_private": (ACTION, "was public in the source and is private in the destination"),
    "user_without_counterpart": (ACTION, "a user of the source is not in the destination; left out"),
    "reference_to_unmovable": (ACTION, "a reference to something that cannot be moved was left out"),
    "source_id_in_text": (ACTION, "a text contains an id of the source; left as it is"),
    "waits": (ACTION, "a reference waits for an object that is not there yet"),
    "external_attachment": (ACTION, "an attachment lies in a bucket of yours; the destination needs access to it"),
    "version_pin_removed": (LOSS, "a version named a transaction of the source; the reference now means the latest version"),
    "field_not_writable": (LOSS, "a field cannot be written through the API"),
    "attachment_left": (LOSS, "attachments were left in the source as asked for"),
    "field_made_attachment": (
        LOSS,
        "rows above the size limit: their largest fields became JSON attachments, which are not searched",
    ),
    "row_field_not_carried": (LOSS, "a field of rows cannot be written through the API"),
    "kind_unavailable": (LOSS, "a kind of object cannot be listed on this server"),
    "unresolved_reference": (FAILURE, "a reference could not be resolved and was left out"),
    "attachment_not_copied": (FAILURE, "the bytes of an attachment were not copied; the reference still names the source's"),
    "not_created": (FAILURE, "could not be created or updated"),
    "reference_not_added": (FAILURE, "a reference could not be added afterwards"),
    "row_refused": (FAILURE, "rows were refused by the destination"),
    "comment_refused": (FAILURE, "comments of rows were refused by the destination"),
    "row_differs": (FAILURE, "rows exist with other content; left alone"),
    "stream_failed": (FAILURE, "the rows of an object could not be copied to the end"),
}


def finding(kind: str, **facts: Any) -> Dict[str, Any]:
    """{kind, severity, resource, id, name, project, path?, ref?, detail?, count?, next?}; empty facts are left out."""
    severity, sentence = KINDS[kind]
    record = {"kind": kind, "severity": severity, "about": sentence, **facts}
    return {name: value for name, value in record.items() if value not in (None, "", 0)}
