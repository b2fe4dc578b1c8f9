"""Groups findings into what to do, what failed, and what was lost, with one line for each kind.

A line names the first few secrets, users or objects. The findings list every place.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, Mapping, Sequence

from bt_migrate.model.findings import ACCEPTED, ACTION, FAILURE, KINDS, LOSS, NOT_A_MEMBER
from bt_migrate.model.resource_table import USERS
from bt_migrate.model.resources import BY_NAME
from bt_migrate.report.display import LISTED, LONG_NAME_COLUMNS, listing, plural, quoted, shown

ACTION_DETAIL_COLUMNS = 120
# Singular nouns of resources, where the name without "s" is not English.
NOUNS = {
    "acls": "ACL",
    "ai_secrets": "AI secret",
    "api_keys": "API key",
    "env_vars": "environment variable",
    "logs": "project log",
    "mcp_servers": "MCP server",
    "project_settings": "project setting",
}


# Properties of Group that the summary of a kind in model/findings.py can use.
ACTION_FIELDS = (
    "objects", "refs", "places", "rows", "where", "waiting", "names", "users", "emails", "details",
    "things", "words", "kinds",
)  # fmt: skip


class Count(int):
    """A number that `format` joins with a noun: f"{Count(2):row}" is "2 rows"."""

    def __format__(self, noun: str) -> str:
        return plural(int(self), noun) if noun else f"{int(self):,}"


class Group:
    """The findings of one kind, with the values that its summary can use."""

    def __init__(self, kind: str, records: Sequence[Mapping[str, Any]]) -> None:
        self.kind = kind
        self._records = records

    @property
    def objects(self) -> Count:
        return Count(
            len(
                {
                    (record["resource"], record.get("id") or record.get("name"))
                    for record in self._records
                }
            )
        )

    @property
    def refs(self) -> Count:
        return Count(len({record.get("ref") for record in self._records}))

    @property
    def users(self) -> Count:
        return Count(len(self._users()))

    @property
    def emails(self) -> str:
        """E-mail addresses of the users, or their ids if the addresses are not known."""
        return listing(self._users().values(), columns=LONG_NAME_COLUMNS)

    def _users(self) -> Dict[str, str]:
        """User id -> e-mail address or id."""
        missing_users = {
            str(record.get("id")): str(record.get("name"))
            for record in self._records
            if record["resource"] == USERS.name
        }
        named = {
            str(record["ref"]): str(record.get("detail") or record["ref"]).replace(NOT_A_MEMBER, "")
            for record in self._records
            if record.get("ref")
        }
        return {**named, **missing_users}

    @property
    def places(self) -> Count:
        """Number of places in objects. Places in rows are counted by `rows`; users do not count."""
        return Count(
            sum(
                not record.get("count") and record["resource"] != USERS.name
                for record in self._records
            )
        )

    @property
    def rows(self) -> Count:
        return Count(sum(map(rows_of, self._records)))

    @property
    def where(self) -> str:
        """`48 places, 840 rows`"""
        parts = [
            f"{self.places:place}" if self.places else "",
            f"{self.rows:row}" if self.rows else "",
        ]
        return ", ".join(filter(None, parts))

    @property
    def waiting(self) -> str:
        """` (3 places, 2 rows wait)`, or "" if there are none"""
        return f" ({self.where} wait)" if self.where else ""

    @property
    def names(self) -> str:
        """The names of the objects, the first few."""
        return listing(dict.fromkeys(str(record.get("name", "")) for record in self._records))

    @property
    def details(self) -> str:
        details = dict.fromkeys(str(record.get("detail", "")) for record in self._records)
        return listing(details, 2, columns=ACTION_DETAIL_COLUMNS)

    @property
    def words(self) -> str:
        """The distinct words of the details, sorted: `slack,webhook`"""
        details = (str(record.get("detail", "")).split(",") for record in self._records)
        return ",".join(sorted({word for words in details for word in words}))

    @property
    def kinds(self) -> str:
        """`env_vars, org_automations`: as options name them"""
        return ", ".join(dict.fromkeys(record["resource"] for record in self._records))

    @property
    def things(self) -> str:
        """`2 functions (refund, Topics), 1 view (Weekly)`"""
        # Objects of several projects can have one name.
        names: Dict[str, Dict[Any, str]] = {}
        for record in self._records:
            name = str(record.get("name", ""))
            identity = record.get("id") or (record.get("project"), name)
            names.setdefault(record["resource"], {})[identity] = name
        return ", ".join(
            f"{count_and_noun(len(named), resource)} ({listing(dict.fromkeys(named.values()), 3)})"
            for resource, named in names.items()
        )

    def line(self) -> str:
        """The kind in one line: its summary, or its meaning and a count if it has no summary."""
        kind = KINDS[self.kind]
        if not kind.summary:
            return f"{kind.about} ({self.where})"
        return kind.summary.format(**{name: getattr(self, name) for name in ACTION_FIELDS})


def rows_of(record: Mapping[str, Any]) -> int:
    """The rows of a finding; 0 if findings of the same kind at other places count them."""
    return int(record.get("rows", record.get("count", 0)))


def noun_of(resource: str) -> str:
    """`function` for functions, `AI secret` for ai_secrets"""
    kind = BY_NAME[resource].kind if resource in BY_NAME else re.sub("s$", "", resource)
    return NOUNS.get(resource, kind.replace("_", " "))


def count_and_noun(count: int, resource: str) -> str:
    """`1 function`, `2 AI secrets`"""
    return plural(count, noun_of(resource))


def grouped_by_kind(findings: Iterable[Mapping[str, Any]]) -> Dict[str, List[Dict[str, Any]]]:
    """Returns {"to_do", "failed", "accepted", "lost"} -> [{kind, text, findings}].

    The kinds are in the order of KINDS. `findings` is the number of findings of the kind.
    """
    by_kind: Dict[str, List[Mapping[str, Any]]] = {}
    for record in findings:
        by_kind.setdefault(record["kind"], []).append(record)
    sections = {ACTION: "to_do", FAILURE: "failed", ACCEPTED: "accepted", LOSS: "lost"}
    lines: Dict[str, List[Dict[str, Any]]] = {name: [] for name in sections.values()}
    for kind, (severity, *_) in KINDS.items():
        if kind in by_kind:
            records = by_kind[kind]
            line = {"kind": kind, "text": Group(kind, records).line(), "findings": len(records)}
            lines[sections[severity]].append(line)
    return lines


def problem_line(problem: Mapping[str, Any]) -> str:
    """`prompt 'House style' (Shared Library): differs in description, left as it is`"""
    line = f"{noun_of(problem['resource'])} {quoted(problem['name'])}"
    if problem.get("project"):
        line += f" ({shown(problem['project'])})"
    return f"{line}: {_outcome_text(problem)}"


def _outcome_text(problem: Mapping[str, Any]) -> str:
    fields = ", ".join(problem.get("fields") or ())
    outcome = f"{problem['outcome']} in {fields}" if fields else problem["outcome"]
    reason = str(problem.get("reason") or "")
    return f"{outcome}{': ' if reason else ''}{shown(reason, 200)}"


def problem_texts(problems: Iterable[Mapping[str, Any]]) -> List[str]:
    """Returns a line for each problem; more than a few with the same outcome share one line."""
    alike: Dict[Any, List[Mapping[str, Any]]] = {}
    for problem in problems:
        alike.setdefault((problem["resource"], _outcome_text(problem)), []).append(problem)
    texts: List[str] = []
    for (resource, outcome), together in alike.items():
        if len(together) <= LISTED:
            texts += map(problem_line, together)
        else:
            names = listing(str(problem["name"]) for problem in together)
            texts.append(f"{plural(len(together), noun_of(resource))}: {outcome} ({names})")
    return texts
