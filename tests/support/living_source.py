"""A source that changes hour by hour, from a seed, and what a sync has to carry of the changes.

The changes are found from the sandbox's own transactions, without code of the migration.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from bt_migrate.sandbox.data.schema import KINDS
from tests.support.orgs import ROWS_OF

Json = Dict[str, Any]
HOUR_S, DAY_S = 3600, 86400


@dataclass
class Life:
    """A living organization: its sandbox, the dice, and how often each event happened."""

    sandbox: Any
    org: Any
    rng: random.Random
    happened: Counter[str] = field(default_factory=Counter)
    spared: Set[str] = field(default_factory=set)  # row ids that nothing happens to any more
    made: int = 0  # names and row ids that were given

    def name(self, word: str) -> str:
        self.made += 1
        return f"{word}-{self.made:05}"

    def ago(self, seconds: float = 0.0) -> str:
        moment = datetime.fromtimestamp(self.sandbox.clock.seconds() - seconds, timezone.utc)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

    def text(self) -> str:
        return "".join(self.rng.choice(WORDS) for _ in range(self.rng.randrange(3, 30)))

    def streams(self, *kinds: str) -> List[Tuple[str, str]]:
        """(kind of rows, object id) of everything that holds a row."""
        held = [
            (kind, object_id)
            for kind in kinds or ROWS_OF
            for object_id in ids(self.sandbox, self.org, ROWS_OF[kind])
        ]
        return [place for place in held if self._rows(place)]

    def old_row(self, *kinds: str) -> Tuple[str, str, Json]:
        """(kind of rows, object id, row): any row; large objects no more often than small ones."""
        while True:
            place = self.rng.choice(self.streams(*kinds))
            row = self.rng.choice(self._rows(place))
            if row.id not in self.spared:
                return (*place, row.value())

    def _rows(self, place: Tuple[str, str]) -> Sequence[Any]:
        held = self.sandbox.store.rows.get(place)
        return held.rows if held is not None else ()


def ids(sandbox: Any, org: Any, kind: str) -> List[str]:
    """The ids of all objects of a kind, oldest first; faster than `org.objects`, which copies."""
    return [
        item
        for item, entry in list(sandbox.store.entries[KINDS[kind].store].items())
        if entry.org_id == org.id
    ]


WORDS = ("late ", "refund ", "ticket ", "äöü ", "\U0001f600 ", "\n", "{ref} ", "seat ", "", "why? ")

# -- rows


def new_trace(life: Life, age_s: float = 0.0) -> List[Json]:
    """A root and some spans below it; one in eight has an attachment."""
    ids = [life.name("row") for _ in range(life.rng.randrange(1, 5))]
    rows = []
    for number, row_id in enumerate(ids):
        row: Json = {
            "id": row_id,
            "span_id": "s" + row_id,
            "root_span_id": "s" + ids[0],
            "created": life.ago(age_s - number),
        }
        row["span_parents"] = ["s" + ids[life.rng.randrange(number)]] if number else []
        row.update(
            input={"q": life.text(), "n": 2**60 + number},
            output=life.text(),
            metadata={"step": number, "w": -0.0},
        )
        row.update(
            metrics={"start": life.rng.random(), "tokens": number},
            span_attributes={"name": "n", "type": "llm"},
        )
        rows.append(row)
    if life.rng.random() < 1 / 8:
        content = life.rng.getrandbits(8 * 400).to_bytes(400, "big")
        rows[-1]["output"] = [
            life.org.attach(content, filename=f"{ids[-1]}.png", content_type="image/png")
        ]
    return rows


def append_logs(life: Life) -> None:
    life.org.insert(
        "project_logs",
        _any(life, "project"),
        [row for _ in range(life.rng.randrange(1, 4)) for row in new_trace(life)],
    )


def append_late_logs(life: Life) -> None:
    """Rows whose clock was days behind, or whose queue was."""
    life.org.insert(
        "project_logs",
        _any(life, "project"),
        new_trace(life, age_s=life.rng.uniform(1, 20) * DAY_S),
    )


def append_experiment_rows(life: Life) -> None:
    life.org.insert("experiment", _any(life, "experiment"), new_trace(life))


def append_dataset_rows(life: Life) -> None:
    life.org.insert("dataset", _any(life, "dataset"), cases(life, life.rng.randrange(1, 4)))


def cases(life: Life, count: int) -> List[Json]:
    return [
        {"id": life.name("case"), "input": {"q": life.text()}, "expected": life.rng.random()}
        for _ in range(count)
    ]


def score_old_rows(life: Life) -> None:
    """A reviewer, or an online scorer, days later."""
    for _ in range(life.rng.randrange(1, 4)):
        kind, object_id, row = life.old_row("project_logs", "experiment")
        life.org.insert(
            kind,
            object_id,
            [
                {
                    "id": row["id"],
                    "_is_merge": True,
                    "scores": {life.rng.choice("abc"): life.rng.random()},
                }
            ],
        )


def tag_old_row(life: Life) -> None:
    kind, object_id, row = life.old_row()
    tags = [*(row["tags"] or []), life.rng.choice(("seen", "gold", "bad"))]
    life.org.insert(
        kind,
        object_id,
        [{"id": row["id"], "_is_merge": True, "tags": tags, "metadata": {life.name("by"): "ana"}}],
    )


def edit_dataset_row(life: Life) -> None:
    _, object_id, row = life.old_row("dataset")
    for _ in range(
        life.rng.randrange(1, 4)
    ):  # more than once before a sync is one version to carry
        life.org.insert(
            "dataset",
            object_id,
            [{"id": row["id"], "_is_merge": True, "expected": life.rng.random()}],
        )


def replace_row(life: Life) -> None:
    """A whole new content under the old id; keys go that a merge would have left."""
    kind, object_id, row = life.old_row()
    fresh: Json = {
        "id": row["id"],
        "created": row["created"],
        "input": life.text(),
        "metadata": {"again": life.made},
    }
    if kind != "dataset":
        fresh.update({name: row[name] for name in ("span_id", "root_span_id", "span_parents")})
    life.org.insert(kind, object_id, [fresh])


def delete_row(life: Life) -> None:
    kind, object_id, row = life.old_row()
    life.org.insert(kind, object_id, [{"id": row["id"], "_object_delete": True}])


def delete_and_bring_back(life: Life) -> None:
    kind, object_id, row = life.old_row()
    life.org.insert(kind, object_id, [{"id": row["id"], "_object_delete": True}])
    life.org.insert(
        kind, object_id, [{"id": row["id"], "created": row["created"], "input": "back again"}]
    )


def add_and_delete(life: Life) -> None:
    """Nobody but the source ever knows of it."""
    kind, object_id = life.rng.choice(life.streams())
    row_id = life.name("gone")
    life.org.insert(kind, object_id, [{"id": row_id, "input": 1}])
    life.org.insert(kind, object_id, [{"id": row_id, "_object_delete": True}])


def comment_on_row(life: Life) -> None:
    kind, object_id, row = life.old_row()
    life.org.comment(kind, object_id, row["id"], life.text())


def change_and_comment_on_row(life: Life) -> None:
    kind, object_id, row = life.old_row()
    life.org.insert(
        kind,
        object_id,
        [{"id": row["id"], "_is_merge": True, "metadata": {life.name("why"): "see comment"}}],
    )
    life.org.comment(kind, object_id, row["id"], life.text())


# -- objects


def _any(life: Life, kind: str) -> str:
    return life.rng.choice(ids(life.sandbox, life.org, kind))


def new_project(life: Life) -> None:
    project = life.org.create("project", {"name": life.name("Project/ü")})["id"]
    life.org.create("project_tag", {"project_id": project, "name": "gold", "color": "#FFD700"})
    life.org.insert("project_logs", project, new_trace(life))
    _new_prompt_in(life, project)


def new_dataset(life: Life) -> None:
    made = life.org.create(
        "dataset",
        {"project_id": _any(life, "project"), "name": life.name("dataset"), "metadata": {"v": 1}},
    )
    life.org.insert("dataset", made["id"], cases(life, life.rng.randrange(4, 12)))


def new_experiment(life: Life, project: Optional[str] = None, name: str = "") -> str:
    """Of the cases of a dataset, with another experiment as its base."""
    dataset, base = (
        life.rng.choice(life.streams("dataset"))[1],
        ids(life.sandbox, life.org, "experiment"),
    )
    body = {
        "project_id": project or _any(life, "project"),
        "name": name or life.name("experiment"),
        "dataset_id": dataset,
    }
    made = life.org.create(
        "experiment", {**body, **({"base_exp_id": life.rng.choice(base)} if base else {})}
    )["id"]
    rows = []
    for case in life.org.rows("dataset", dataset)[:12]:
        origin = {
            "object_type": "dataset",
            "object_id": dataset,
            **{name: case[name] for name in ("id", "_xact_id", "created")},
        }
        rows += [{**row, "origin": origin} for row in new_trace(life)]
    life.org.insert("experiment", made, rows)
    return str(made)


def new_prompt(life: Life) -> None:
    _new_prompt_in(life, _any(life, "project"))


def _new_prompt_in(life: Life, project: str) -> None:
    slug = life.name("prompt")
    data = {"prompt": {"type": "completion", "content": life.text()}, "options": {"model": "m-1"}}
    life.org.create(
        "prompt", {"project_id": project, "name": slug.title(), "slug": slug, "prompt_data": data}
    )


def edit_prompt(life: Life) -> None:
    data = {
        "prompt": {"type": "completion", "content": life.text()},
        "options": {"model": f"m-{life.rng.randrange(9)}"},
    }
    life.org.patch("prompt", _any(life, "prompt"), {"prompt_data": data})


def rename_prompt(life: Life) -> None:
    life.org.patch("prompt", _any(life, "prompt"), {"name": life.name("Renamed prompt")})


def move_prompt(life: Life) -> None:
    """Its slug is its natural key: it is the same prompt under another key."""
    life.org.patch("prompt", _any(life, "prompt"), {"slug": life.name("slug")})


def rename_experiment(life: Life) -> None:
    life.org.patch(
        "experiment", _any(life, "experiment"), {"name": life.name("renamed experiment")}
    )


def rename_dataset(life: Life) -> None:
    life.org.patch("dataset", _any(life, "dataset"), {"name": life.name("renamed dataset")})


def take_over_name(life: Life) -> None:
    """What was the nightly experiment is put aside, and a new one has its name."""
    old = life.rng.choice(life.org.objects("experiment"))
    life.org.patch("experiment", old["id"], {"name": life.name(f"{old['name'][:20]} (old)")})
    new_experiment(life, old["project_id"], old["name"])


def describe_experiment(life: Life) -> None:
    life.org.patch(
        "experiment",
        _any(life, "experiment"),
        {"description": life.text() + "!", "metadata": {life.name("k"): 1.0}},
    )


def make_and_drop_dataset(life: Life) -> None:
    made = life.org.create(
        "dataset", {"project_id": _any(life, "project"), "name": life.name("scratch")}
    )["id"]
    life.org.insert("dataset", made, cases(life, 3))
    life.org.delete("dataset", made)


Event = Callable[[Life], Any]
# What happens, and how often on a day.
ROW_EVENTS: Dict[Event, float] = {
    append_logs: 14,
    append_late_logs: 2,
    append_experiment_rows: 2,
    append_dataset_rows: 2,
    score_old_rows: 6,
    tag_old_row: 3,
    edit_dataset_row: 3,
    replace_row: 2,
    delete_row: 2,
    delete_and_bring_back: 0.4,
    add_and_delete: 0.4,
    change_and_comment_on_row: 1,
}
COMMENT_EVENTS: Dict[Event, float] = {comment_on_row: 1}
OBJECT_EVENTS: Dict[Event, float] = {
    new_project: 0.1,
    new_dataset: 0.3,
    new_experiment: 0.6,
    new_prompt: 0.4,
    edit_prompt: 1,
    make_and_drop_dataset: 0.2,
    describe_experiment: 0.3,
}
RENAME_EVENTS: Dict[Event, float] = {
    rename_prompt: 0.4,
    move_prompt: 0.2,
    rename_experiment: 0.3,
    rename_dataset: 0.2,
    take_over_name: 0.2,
}
ALL_EVENTS = {**ROW_EVENTS, **COMMENT_EVENTS, **OBJECT_EVENTS, **RENAME_EVENTS}


def born(sandbox: Any, org: Any, seed: int, days: int = 3) -> Life:
    """An organization with some days of history."""
    life = Life(sandbox, org, random.Random(seed))
    project = org.create("project", {"name": "Support"})["id"]
    org.create("project", {"name": "Search, beta"})
    org.insert("project_logs", project, new_trace(life))
    for _ in range(3):
        new_dataset(life)
        new_prompt(life)
    for _ in range(3):
        new_experiment(life)
    pass_time(life, days * 24, ROW_EVENTS)
    return life


def pass_time(life: Life, hours: float, events: Mapping[Event, float] = ALL_EVENTS) -> None:
    """Let so much simulated time pass, and happen what happens then, at random moments."""
    begin = life.sandbox.clock.seconds()
    due = [
        event
        for event, per_day in events.items()
        for _ in range(_times(life.rng, per_day * hours / 24))
    ]
    for moment, event in sorted(
        ((life.rng.random() * hours * HOUR_S, event) for event in due), key=lambda item: item[0]
    ):
        life.sandbox.clock.set(begin + moment)
        happen(life, event)
    life.sandbox.clock.set(begin + hours * HOUR_S)


def happen(life: Life, event: Event) -> None:
    life.happened[event.__name__] += 1
    event(life)


def _times(rng: random.Random, mean: float) -> int:
    """A whole number with that mean."""
    return int(mean) + (rng.random() < mean % 1)


# -- the books

Row = Tuple[str, str, str]  # kind of rows, object id, row id


class Change(NamedTuple):
    """Rows that a later moment has in a version that the earlier one lacks, and deleted rows."""

    carried: Set[Row]
    deleted: Set[Row]


def versions(sandbox: Any, org: Any) -> Dict[Row, int]:
    """Every row of an organization now, and the moment of its transaction."""
    places = [
        (kind, object_id)
        for kind, holder in ROWS_OF.items()
        for object_id in ids(sandbox, org, holder)
    ]
    held = [(place, sandbox.store.rows[place]) for place in places if place in sandbox.store.rows]
    return {(*place, row.id): row.moment for place, rows in held for row in list(rows.rows)}


def change(before: Mapping[Row, int], after: Mapping[Row, int]) -> Change:
    """What a sync must carry between two moments: each row once, however often it changed."""
    objects = {row[:2] for row in after}
    return Change(
        {row for row, version in after.items() if before.get(row) != version},
        {row for row in before if row not in after and row[:2] in objects},
    )


# -- people in the destination


def edit_there(life: Life, dest: Any) -> Tuple[str, str]:
    """Edit a row of the destination, which the source leaves alone from then on."""
    places = [(kind, obj["id"]) for kind, holder in ROWS_OF.items() for obj in dest.objects(holder)]
    rows = [
        (kind, object_id, row)
        for kind, object_id in places
        for row in dest.rows(kind, object_id)
        if row["id"] not in life.spared
    ]
    kind, object_id, row = life.rng.choice(rows)
    dest.insert(
        kind,
        object_id,
        [{"id": row["id"], "_is_merge": True, "metadata": {"by people there": life.made}}],
    )
    life.spared.add(row["id"])
    return kind, row["id"]


def add_there(life: Life, dest: Any) -> Tuple[str, str]:
    """Somebody adds a row to a log of the destination; (kind, row id)."""
    row_id = life.name("theirs")
    dest.insert(
        "project_logs",
        life.rng.choice(dest.objects("project"))["id"],
        [{"id": row_id, "input": "of people there"}],
    )
    return "project_logs", row_id
