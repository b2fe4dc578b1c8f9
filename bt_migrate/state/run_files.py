"""Names of the files and folders of a run."""

from __future__ import annotations

import re

# The form of a run's name, see `make_run_folder`. A person may name a folder otherwise.
RUN_NAME = re.compile(r"20\d{6}_\d{6}(_\d+)?$", re.ASCII)
RUN_FILE = "run.json"
LOCK_FILE = "run.lock"
STATUS_FILE = "status.json"  # what the running process reports of itself
CONTROL_FILE = "control"  # what bin/control asks of it
ORGANIZATION_FOLDER = "organization"
VERIFY_FOLDER = "verify"
STATE_ENDING = "_state.json"  # of the file of a stream, or of the objects of one resource
SEEN_ENDING = "_seen.sqlite3"  # of the store of a stream's delivered rows
ABSENT_ENDING = "_absent.json"  # of the file that says since when rows of a stream are missing
REFUSED_ENDING = "_failed.jsonl"  # of the file that names a stream's refused rows
LOGS_STATE_FILE = "logs" + STATE_ENDING

# Every line of the last start; those before it are run.log.1 and so on.
LOG_FILE = "run.log"
KEPT_LOGS = 10

# Project folders are in the same folder as these files.
RUN_FILES = frozenset(
    (
        RUN_FILE, LOCK_FILE, STATUS_FILE, CONTROL_FILE, f"{RUN_FILE}.tmp",
        "attachments.sqlite3", "attachments.sqlite3-wal", "attachments.sqlite3-shm",
        "findings.jsonl", "migration_report.json", "migration_summary.txt", "report.html",
        LOG_FILE, *(f"{LOG_FILE}.{number}" for number in range(1, KEPT_LOGS)),
    )
)  # fmt: skip
# Names of our own folders, and those that Windows does not allow.
RESERVED_NAMES = frozenset(
    (
        ORGANIZATION_FOLDER, VERIFY_FOLDER, "con", "prn", "aux", "nul",
        *(f"com{number}" for number in "123456789"), *(f"lpt{number}" for number in "123456789"),
    )
)  # fmt: skip
