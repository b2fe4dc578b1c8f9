"""Asks on a terminal whether users may be invited."""

from __future__ import annotations

import sys

from bt_migrate.cli.streams import agrees
from bt_migrate.errors import UsageError
from bt_migrate.migration.people import missing_users
from bt_migrate.objects.catalog import Catalog
from bt_migrate.report.advice import DECLINED, NOT_ASKED
from bt_migrate.report.display import shown

WITHOUT_IT = f"{DECLINED}, nothing was written; run again without it"
NO_TERMINAL = f"{NOT_ASKED} to ask on; add --yes to invite without a question"


def agree_to_invite(catalog: Catalog) -> None:
    """Raises UsageError unless a person agrees, or has agreed by --yes."""
    settings = catalog.settings
    if not settings.invite_users or settings.dry_run or settings.yes:
        return
    if settings.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(NO_TERMINAL)
    missing = sorted(missing_users(catalog).values())
    if not missing:
        return
    sent = "are sent" if settings.send_invites else "are not sent"
    dest = shown(catalog.dest.display_name)
    print(f"Not members of {dest}: {', '.join(map(shown, missing))}", file=sys.stderr)
    if not agrees(f"Invite the users that something refers to? E-mails {sent}.", sys.stderr):
        raise UsageError(WITHOUT_IT)
