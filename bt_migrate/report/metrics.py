"""A report as metrics in the Prometheus text format, for a file that a node exporter collects.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Iterator, List, Mapping, Optional, Tuple

from bt_migrate.model.findings import ACTION, FAILURE, LOSS

PREFIX = "bt_migrate"
# Entries of the totals that are not numbers of outcomes.
NOT_OUTCOMES = ("fetched", "bytes")
Sample = Tuple[Mapping[str, str], float]


def metrics_text(report: Optional[Mapping[str, Any]], exit_code: int, ended_s: float) -> str:
    """Returns the file. `report` is None if the program ended before it had a run; `ended_s` is
    in seconds since the epoch.
    """
    lines: List[str] = []
    for name, about, samples in _metrics(report, exit_code, ended_s):
        lines += [f"# HELP {PREFIX}_{name} {about}", f"# TYPE {PREFIX}_{name} gauge"]
        lines += [f"{PREFIX}_{name}{_labels(labels)} {value:.15g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _metrics(
    report: Optional[Mapping[str, Any]], exit_code: int, ended_s: float
) -> Iterator[Tuple[str, str, List[Sample]]]:
    yield "exit_code", "Exit code of the last start.", [({}, exit_code)]
    yield "end_timestamp_seconds", "When the last start ended.", [({}, ended_s)]
    if report is None:
        return
    totals = report["totals"]
    for name in ("objects", "rows"):
        counts = {key: value for key, value in totals[name].items() if key not in NOT_OUTCOMES}
        samples: List[Sample] = [({"outcome": key}, value) for key, value in counts.items()]
        yield name, f"Number of {name} of the run by outcome.", samples
    yield "rows_read", "Rows read from the source.", [({}, totals["rows"]["fetched"])]
    yield "bytes_read", "Bytes of rows read from the source.", [({}, totals["rows"]["bytes"])]
    severities = Counter(finding["severity"] for finding in report["findings"])
    yield (
        "findings",
        "Findings of the run by severity.",
        # also those without a finding: an alert compares with a number
        [({"severity": key}, severities[key]) for key in (ACTION, LOSS, FAILURE)],
    )
    verification = report["verification"]
    if verification:
        yield (
            "verified_equal",
            "1 if the comparison found both sides equal.",
            [({}, float(bool(verification["equal"])))],
        )
    lag = report["lag"]
    if lag and lag.get("rows") is not None:
        yield (
            "lag_rows",
            "Rows written to the source since the mark of the run.",
            [({}, lag["rows"])],
        )


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
