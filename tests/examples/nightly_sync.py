"""A sync as part of another program: run it, and act on its report."""

from __future__ import annotations

import sys

import bt_migrate


def main(state_dir: str) -> int:
    code = bt_migrate.run("migrate-all", ["--since-last", "--quiet", "--state-dir", state_dir])
    report = bt_migrate.read_report(state_dir)
    rows = report["totals"]["rows"]
    print(f"{report['status']}: {rows['fetched']} rows read, {len(report['problems'])} problems")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
