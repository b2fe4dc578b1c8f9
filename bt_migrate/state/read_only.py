"""A run on a file system that cannot be written is compared by means of a copy."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

from bt_migrate.errors import StateError
from bt_migrate.state.accepted import ACCEPTED_FILE
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_files import LOCK_FILE, VERIFY_FOLDER

log = logging.getLogger("bt_migrate.state")


def writable(run: RunDirectory) -> RunDirectory:
    """The run, or a copy of it in a temporary folder if its own cannot be written. The copy stays,
    with the results in it. Raises StateError.
    """
    if os.access(run.path, os.W_OK):
        return run
    try:
        place = Path(tempfile.mkdtemp(prefix="bt_migrate_")) / run.path.name
        # What an earlier comparison left would be mixed with the new results.
        shutil.copytree(run.path, place, ignore=shutil.ignore_patterns(LOCK_FILE, VERIFY_FOLDER))
        accepted = run.path.parent / ACCEPTED_FILE
        if accepted.exists():
            shutil.copy(accepted, place.parent)
    except (OSError, shutil.Error) as error:
        raise StateError(
            f"{run.path}: cannot be written, and not be copied either ({error}); set TMPDIR to a"
            " folder with room"
        ) from None
    log.warning(
        "%s: cannot be written; comparing by means of a copy, with the results in %s",
        run.path,
        place,
        extra={"event": "read_only", "run": str(place)},
    )
    copy = RunDirectory(place)
    copy.record.copy_of = str(run.path)
    copy.save()
    return copy
