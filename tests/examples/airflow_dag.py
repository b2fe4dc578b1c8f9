"""An Airflow DAG that moves an organization in shards.

Tasks: create the objects, plan the shards, one mapped task for each shard, merge the runs, run the
remaining phases, verify.

Copy it into the folder of DAGs and adapt it. It needs this checkout, and a folder that all workers
can write to. Settings (keys, URLs) come from `.env` in the checkout or from the environment of the
workers. Tried with Airflow 3.3 (`airflow dags test`).
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Dict, List

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

CHECKOUT = os.environ.get("BT_MIGRATE_CHECKOUT", "/srv/bt_migrate")
STATE = os.environ.get("BT_MIGRATE_STATE", "/srv/bt_migrate_state")
SHARDS, AT_ONCE = 8, 4
RATE = ""  # such as "--btql-per-minute 5": the organization's queries a minute, divided by AT_ONCE

# A retried task continues where it stopped. Exit 1 (some rows differ or failed) does not fail the
# task: the verification reports it.
# Every other code fails the task: 3 (stopped, safe to run again), 4 (run is in use), 70 (a fault of
# the program).
BASH = {"cwd": CHECKOUT, "append_env": True, "retries": 3, "retry_delay": timedelta(minutes=2)}
OR_INCOMPLETE = "|| [ $? -eq 1 ]"

with DAG("bt_migrate", schedule=None, catchup=False) as dag:
    objects = BashOperator(
        task_id="objects",
        bash_command=f"bin/migrate-all --no-rows --state-dir {STATE}/objects {OR_INCOMPLETE}",
        **BASH,
    )
    plan = BashOperator(
        task_id="plan",
        bash_command=f"bin/plan-shards --shards {SHARDS} --state-dir {STATE}/objects > {STATE}/new"
        f" && mv {STATE}/new {STATE}/shards.jsonl",
        **BASH,
    )

    @task
    def shards() -> List[Dict[str, str]]:
        """The environment of each mapped task: its number."""
        lines = Path(STATE, "shards.jsonl").read_text(encoding="utf-8").splitlines()
        return [{"SHARD": str(number)} for number in range(len(lines))]

    numbers = shards()
    rows = BashOperator.partial(
        task_id="rows",
        bash_command=f"bin/migrate-all --shard {STATE}/shards.jsonl:$SHARD"
        f" --state-dir {STATE}/$SHARD {RATE} {OR_INCOMPLETE}",
        max_active_tis_per_dagrun=AT_ONCE,
        **BASH,
    ).expand(env=numbers)
    merge = BashOperator(
        task_id="merge",
        bash_command=f"bin/merge-runs {STATE}/objects {STATE}/[0-9]* --state-dir {STATE}/whole",
        **BASH,
    )
    rest = BashOperator(
        task_id="rest",
        bash_command=f"bin/migrate-all --no-verify --state-dir {STATE}/whole {OR_INCOMPLETE}",
        **BASH,
    )
    verify = BashOperator(
        task_id="verify", bash_command=f"bin/verify --full --state-dir {STATE}/whole", **BASH
    )

    objects >> plan >> numbers
    rows >> merge >> rest >> verify
