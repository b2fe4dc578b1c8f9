"""Validation says what the two keys may do: write, and read each list that a run needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional

import pytest

from bt_migrate.errors import ApiError
from bt_migrate.migration.rights import is_refusal
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Incoming
from tests.support.orgs import Pair, run, runs
