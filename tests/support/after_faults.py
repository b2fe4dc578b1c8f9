"""What is wrong after a run with faults and a second run without them."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

from tests.support.claims import untrue_claims
from tests.support.compare_orgs import differences
from tests.support.orgs import Ended, Pair, report, run, runs

SMALL = {"MIGRATION_EVENTS_FETCH_LIMIT": "100", "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "50"}


def problems_after_rerun(
    pair: Pair, root: Path, first: Ended, codes: Tuple[int, ...] = (1, 3)
) -> List[str]:
    """Problems found after a run with faults and a second one without; [] if there are none."""
    wrong = (
        []
        if first.code in codes
        else [f"the run with the trouble ended with {first.code}: {first.last_words}"]
    )
    wrong += ["a traceback"] if "Traceback" in first.err else []
    told = report(root)
    wrong += (
        [] if told["status"] in ("incomplete", "failed") else [f"its report says {told['status']}"]
    )
    wrong += untrue_claims(pair, runs(root)[-1])
    pair.sandbox.faults.clear()
    pair.sandbox.refuse = None
    second = run(pair.sandbox, root, **SMALL)
    wrong += (
        []
        if second.code == 0
        else [f"the run without it ended with {second.code}: {second.last_words}"]
    )
    return wrong + differences(pair)
