"""`python -m bt_migrate.sandbox` is bin/sandbox."""

from __future__ import annotations

import sys

from bt_migrate.sandbox.main import main

sys.exit(main())
