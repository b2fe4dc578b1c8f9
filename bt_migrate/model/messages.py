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
            "the name of the organization is misspelled, or the key belongs to another user",
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
            "the URL has an extra path, or is the URL of the web application",
            "use the URL of the API without a path",
        ),
        Message(
            "cannot find out the organization of this key",
            "the data plane is an older one, and the organization has no projects",
            "check the URL, or create one project by hand",
        ),
        Message(
            "source and destination are the same organization",
            "both keys belong to the same organization",
            "use a key of the other organization in one of the two variables",
        ),
        Message(
            "the key may not write to",
            "the key of the destination has no write rights",
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
            "the key worked before, now it or a gateway fails",
            "the key was revoked, or a gateway under load refuses it",
            f"{SAME_COMMAND}; if it fails again, check the key",
        ),
        Message(
            "the server asks to wait …, more than MIGRATION_MAX_RETRY_AFTER",
            "the server has a long outage, or the quota is used up",
            f"{SAME_COMMAND} after that time",
        ),
        Message(
            "run the same command again later",
            "the server refused one kind of request with 429 more than"
            " `MIGRATION_RATE_LIMIT_TRIES` times",
            "stop other clients that use the quota, or set `--btql-per-minute`; then run again",
        ),
        Message(
            "was cut off",
            "a proxy or the network closed the connection before the end of a transfer",
            SAME_COMMAND,
        ),
        Message(
            "do not have the MD5 that the store states",
            "a proxy or the store altered the bytes of an attachment on their way",
            SAME_COMMAND,
        ),
        Message(
            "with a body that is not JSON",
            "a proxy or gateway answered instead of the API",
            f"check the URL and the proxy, then {SAME_COMMAND}",
        ),
        Message(
            "was answered …, but",
            "the server, or a gateway in front of it, sent an answer that does not fit the request",
            f"check the URL, then {SAME_COMMAND}; `bin/probe` shows how the server behaves",
        ),
        Message(
            "the file of certificates cannot be read",
            "an environment variable names a file that is missing or holds no certificate",
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
            "the disk is full, or an SQLite file of the run is damaged",
            f"make room and {SAME_COMMAND}; if it is damaged, use `--new-run`",
        ),
        Message(
            "this user cannot read it",
            "a run in the folder of runs belongs to another user",
            "run as that user, or name another `--state-dir`",
        ),
        Message(
            "cannot hold an attachment (…)",
            "the folder for temporary files is full",
            "make room or set `TMPDIR`",
        ),
        Message(
            "cannot be written, and not be copied either",
            "bin/verify copies a run on a read-only disk, and the copy could not be written either",
            "set `TMPDIR` to a folder with room",
        ),
        Message(
            "the locale of this process cannot name the folder",
            "another locale made the run, with folders named as projects in other letters",
            f"set `LC_ALL=C.UTF-8`, then {SAME_COMMAND}",
        ),
        Message(
            "is damaged;",
            "the file was changed or truncated by another program",
            NEW_RUN,
        ),
        Message(
            "is not known to this version;",
            "the run was made by a newer version of this program",
            "use that version, or start with `--new-run`",
        ),
        Message(
            "is missing;",
            "a field was removed from the file",
            NEW_RUN,
        ),
        Message(
            "the outcome of … is not known;",
            "the file with the outcomes of a kind was changed by another program",
            NEW_RUN,
        ),
        Message(
            "slices is not a list of key ranges;",
            "the checkpoint of a stream was changed by another program",
            NEW_RUN,
        ),
        Message(
            "is not a map of row ids to seconds;",
            "the file with the missing rows of a stream was changed by another program",
            NEW_RUN,
        ),
        Message(
            "has format …, this program reads",
            "the run was made by another version of this program",
            "use that version, or start with `--new-run`",
        ),
        Message(
            "cannot be read (…)",
            "the permissions of the file changed, or the disk is defective",
            "correct the permissions; `bin/report` writes a report again, and `bin/verify` "
            "the files of a comparison",
        ),
        Message(
            "this machine gives this process no more memory or threads",
            "a limit of the shell, of the user or of the container is too low",
            "raise the limit, or lower `--max-concurrent` and `--read-streams`, then run the same "
            "command again",
        ),
        Message(
            "cannot be used by this process (…)",
            "a path belongs to another user, or is longer than the file system allows",
            "give the user of this process the right to it, or use another path",
        ),
        Message(
            "restore it from a copy, or remove it: what was accepted is then reported again",
            "`accepted.json` was changed by hand, or is incomplete after a power failure",
            "as the message says; a new run would read the same file",
        ),
        Message(
            "is not a report",
            "`migration_report.json` was changed by hand",
            "`bin/report` writes it again",
        ),
        Message(
            "is damaged or of another version (…)",
            "the file was changed by hand, or is incomplete after a power failure",
            "remove the file or line, as the message says",
        ),
        Message(
            "holds … runs of this second",
            "a thousand runs were created within one second",
            "try again later",
        ),
    ),
    "Which run is used": (
        Message(
            "process … is working on this run",
            "another process works in the run, on this or another machine",
            "wait for its end (`bin/status` shows it, `--wait-lock` waits), or stop it with "
            "`bin/control … stop`",
        ),
        Message(
            "was made for … organization",
            "the run was created with keys of other organizations",
            "use the keys of these organizations, or another `--state-dir`",
        ),
        Message(
            "is a run already; name the folder above it",
            "`--new-run` was given together with the path of a run",
            "pass the folder of runs to `--state-dir`",
        ),
        Message(
            "was undone; start a new run",
            "`bin/undo --yes` has deleted what the run created",
            "pass the folder of runs to `--state-dir`: a new run is started",
        ),
        Message(
            "is not a run directory",
            "the path has no `run.json`",
            "`bin/status --all` lists the runs",
        ),
        Message(
            "--since-last needs the run's own --resources and --projects",
            "the selection of a sync cannot be changed",
            "use the options of the first copy, or another `--state-dir`",
        ),
        Message(
            "only parts of one move can be joined",
            "one of the runs belongs to other organizations or to another plan",
            "leave that run out",
        ),
        Message(
            "not finished: …; finish it, or join it as it is with --unfinished",
            "a shard was not copied completely",
            "run the command of that shard again, then `bin/merge-runs`",
        ),
        Message(
            "not in the destination; move the objects first",
            "a shard copies only rows of objects that were moved before",
            "run `bin/migrate-all --no-rows` first",
        ),
    ),
    "Stopped on request": (
        Message(
            "nothing was written (--fail-on-loss)",
            "the plan contains losses",
            "read the loss list in the summary; if you accept the losses, run without the option",
        ),
        Message(
            "--on-conflict fail: … with other content",
            "objects in the destination have the same name and other content",
            "edit or rename these objects, or choose another policy: [conflicts](conflicts.md)",
        ),
        Message(
            "destination: … was deleted, or the key cannot read it […]; --new-run moves it again",
            "somebody deleted an object in the destination that an unfinished run had moved",
            "run again with `--new-run`: it moves the object, and finds the others",
        ),
        Message(
            "nothing was written: the plan of … no longer holds",
            "the source or the destination changed after the plan was written",
            "write a new plan with `--dry-run --plan-out`",
        ),
        Message(
            "interrupted; requests in flight were finished",
            "Ctrl-C or SIGTERM",
            f"{SAME_COMMAND} to continue",
        ),
        Message(
            "interrupted; everything that was created is deleted again",
            "`bin/probe` was stopped by Ctrl-C or SIGTERM",
            "run it again",
        ),
        Message(
            "another stream ended the run",
            "another thread failed; the lines above name its error",
            f"fix the cause, then {SAME_COMMAND}",
        ),
    ),
    "bin/probe": (
        Message(
            "the server did not create the scratch project",
            "the server returned an existing project or an unexpected answer",
            "check the URL; delete projects of an earlier probe that was killed",
        ),
        Message("has no id", "the server sent an unexpected answer", "check the URL"),
    ),
}
