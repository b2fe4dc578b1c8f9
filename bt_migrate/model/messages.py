"""Messages with which a program ends, their causes, and what to do. Pure.

The manual's page of errors is made from this table. tests/model/test_messages.py compares it with
the code: each message is one of the program, and each error other than a UsageError has a row.
A UsageError says itself what to change; only those that need a longer explanation are here.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Tuple

SAME_COMMAND = "run the same command again"
MAKE_ROOM = "make room, then run the same command again: the last checkpoint is complete"
NEW_RUN = (
    "restore the file from a copy, or start with `--new-run`: existing objects and rows are found,"
    " not duplicated"
)


class Message(NamedTuple):
    """`text` is part of the message; … stands for names, numbers and reasons."""

    text: str
    cause: str
    cure: str


MESSAGES: Dict[str, Tuple[Message, ...]] = {
    "Keys and organizations": (
        Message(
            "refuses the key (…)",
            "the key is wrong, was deleted, or belongs to another region",
            "check the key, or the URL of the other region (`https://api-eu.braintrust.dev`)",
        ),
        Message(
            "the key sees several organizations, name one of:",
            "the user of the key is a member of several organizations",
            "set `BT_SOURCE_ORG` or `BT_DEST_ORG`",
        ),
        Message(
            "the key does not see an organization …; it sees:",
            "the name of the organization is misspelled, or the key is of another user",
            "use one of the names that the message lists",
        ),
        Message(
            "the key sees no organization",
            "the user of the key was removed from the organization",
            "use the key of a member",
        ),
        Message(
            "the key sees no project in",
            "the user of the key may not read any project",
            "use the key of an owner",
        ),
        Message(
            "has no /v1/project (…)",
            "the URL has a path, or is that of the web application",
            "use the URL of the API alone",
        ),
        Message(
            "cannot find out the organization of this key",
            "an older self-hosted data plane, and an organization without projects",
            "check the URL, or create one project by hand",
        ),
        Message(
            "source and destination are the same organization",
            "both keys belong to one organization",
            "check the two keys",
        ),
        Message(
            "the key may not write to",
            "the key of the destination may only read",
            "use a key with write rights",
        ),
    ),
    "Network and server": (
        Message(
            "no answer from … for",
            "the host is down, the URL or the proxy is wrong, or the network is interrupted",
            f"check the URL and `HTTPS_PROXY`, then {SAME_COMMAND}",
        ),
        Message(
            "the key or a gateway fails since a moment ago",
            "the key was revoked, or a gateway under load refuses it",
            f"{SAME_COMMAND}; if it fails again, check the key",
        ),
        Message(
            "the server asks to wait …, more than MIGRATION_MAX_RETRY_AFTER",
            "a long outage or an exhausted quota",
            f"{SAME_COMMAND} after that time",
        ),
        Message(
            "run the same command again later",
            "the server refused one request with 429 more than `MIGRATION_RATE_LIMIT_TRIES` times",
            "end other clients that use the quota, or set `--btql-per-minute`; then run again",
        ),
        Message("was cut off", "a proxy or the network ends transfers early", SAME_COMMAND),
        Message(
            "with a body that is no JSON",
            "a proxy or gateway answered instead of the API",
            f"check the URL and the proxy, then {SAME_COMMAND}",
        ),
        Message(
            "was answered …, but",
            "the server, or a gateway in front of it, sent something else than was requested",
            f"check the URL, then {SAME_COMMAND}; `bin/probe` shows how the server behaves",
        ),
        Message(
            "the file of certificates cannot be read",
            "an environment variable names a file that is missing or is no certificate",
            "correct the variable that the message names",
        ),
        Message(
            "download of an attachment …",
            "the store of the attachments closed the connection",
            f"{SAME_COMMAND}: only this attachment is missing",
        ),
        Message(
            "was not answered with what it asks for",
            "the server does not answer queries as a Braintrust data plane does",
            "check `BT_SOURCE_URL`",
        ),
    ),
    "Disk and files of a run": (
        Message("cannot be written (…)", "the disk is full, or the folder is read-only", MAKE_ROOM),
        Message(
            "cannot be used (…); make room and run again",
            "the disk is full, or a database of the run is damaged",
            f"make room and {SAME_COMMAND}; if it is damaged, use `--new-run`",
        ),
        Message(
            "cannot hold an attachment (…)",
            "the folder for temporary files is full",
            "make room or set `TMPDIR`",
        ),
        Message(
            "cannot be written, and not be copied either",
            "a comparison of a run on a read-only disk needs a copy",
            "set `TMPDIR` to a folder with room",
        ),
        Message(
            "is damaged;",
            "the file was changed or cut off outside of this program",
            NEW_RUN,
        ),
        Message(
            "is not known to this version;",
            "the run was made by a newer version of this program",
            "use that version, or start with `--new-run`",
        ),
        Message(
            "is missing;",
            "a part of the file was removed",
            NEW_RUN,
        ),
        Message(
            "the outcome of … is not one;",
            "the file of an object kind was changed",
            NEW_RUN,
        ),
        Message(
            "slices is no list of key ranges;",
            "the checkpoint of a stream was changed",
            NEW_RUN,
        ),
        Message(
            "is no map of row ids to seconds;",
            "the record of absent rows was changed",
            NEW_RUN,
        ),
        Message(
            "has format …, this program reads",
            "the run was made by another version of this program",
            "use that version, or start with `--new-run`",
        ),
        Message(
            "cannot be read (…)",
            "the rights of the file changed, or the disk fails",
            "correct the rights; reports and comparisons can be made again with "
            "`bin/report` and `bin/verify`",
        ),
        Message(
            "is not a report", "the report was changed by hand", "`bin/report` writes it again"
        ),
        Message(
            "is damaged or of another version (…)",
            "the file was changed, or a power cut left half of it",
            "remove the file or line, as the message says",
        ),
        Message(
            "holds … runs of this second",
            "a thousand runs were started within one second",
            "try again later",
        ),
    ),
    "Which run is used": (
        Message(
            "process … is working on this run",
            "another process works in the run, on this or another machine",
            "look at it with `bin/status`; wait, use `--wait-lock`, or end it with "
            "`bin/control … stop`",
        ),
        Message(
            "was made for … organization",
            "the run belongs to another pair of organizations",
            "use its keys, or another `--state-dir`",
        ),
        Message(
            "is a run already; name the folder above it",
            "`--new-run` together with the path of a run",
            "name the folder of runs",
        ),
        Message(
            "was undone; start a new run",
            "`bin/undo --yes` has deleted what the run created",
            "name the folder of runs: a new run is started",
        ),
        Message(
            "is not a run directory",
            "the path has no `run.json`",
            "`bin/status --all` lists the runs",
        ),
        Message(
            "--since-last needs the run's own --resources and --projects",
            "a sync continues one selection",
            "use the options of the first copy, or another `--state-dir`",
        ),
        Message(
            "only parts of one move can be joined",
            "a run of other organizations or of another plan is among the runs",
            "leave it out",
        ),
        Message(
            "not finished: …; finish it, or join it as it is with --unfinished",
            "a shard was not copied to its end",
            "run its command again, then merge",
        ),
        Message(
            "not in the destination; move the objects first",
            "a shard copies rows only",
            "run `bin/migrate-all --no-rows` first",
        ),
    ),
    "Stopped on request": (
        Message(
            "nothing was written (--fail-on-loss)",
            "the plan has losses",
            "read the loss list in the summary; run without the option once you accept it",
        ),
        Message(
            "--on-conflict fail: … exist with other content",
            "objects of the destination differ",
            "change them, or choose another policy: [conflicts](conflicts.md)",
        ),
        Message(
            "nothing was written: the plan of … no longer holds",
            "source or destination changed since the plan was made",
            "make a new plan",
        ),
        Message(
            "interrupted; what was in flight is finished",
            "Ctrl-C or SIGTERM",
            f"{SAME_COMMAND} to continue",
        ),
        Message(
            "interrupted while waiting",
            "Ctrl-C or SIGTERM during a pause",
            f"{SAME_COMMAND} to continue",
        ),
        Message(
            "another stream ended the run",
            "an error that the lines above name",
            f"{SAME_COMMAND} once its cause is gone",
        ),
    ),
    "bin/probe": (
        Message(
            "the server did not create the scratch project",
            "the server returned an existing project, or its answer is not that of the API",
            "check the URL; delete projects that a killed probe left",
        ),
        Message("has no id", "the server's answer is not that of the API", "check the URL"),
    ),
}
