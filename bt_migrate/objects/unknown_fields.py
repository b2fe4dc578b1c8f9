"""Which fields of a request a server refuses because it does not know them. Pure.

The refusal names a key, and mostly the path of the object that holds it.
"""

from __future__ import annotations

import re
from typing import Any, Iterator, List, Mapping, Optional, Tuple

from bt_migrate.model.references import Path, keys

# assumption: unknown_fields_are_refused
# Recorded for a top-level field: Extraneous key 'tags' at path []
_EXTRANEOUS = re.compile(r"Extraneous keys? (.+?) at path (\[[^\]]*\]|[\w.\"']+)")
# The validator (zod) of other refusals, some of which are recorded, as JSON:
# {"code": "unrecognized_keys", "keys": ["x"], "path": ["prompt_data", "options"], …}
_ISSUE = re.compile(r'\{[^{}]*"code": ?"unrecognized_keys"[^{}]*')
_KEYS = re.compile(r'"keys": ?\[([^\]]*)\]')
_PATH = re.compile(r'"path": ?(\[[^\]]*\])')
# and as text: Unrecognized key(s) in object: 'x', 'y' at "prompt_data.options"
_LIST = r"['\"][^'\"]+['\"](?:, ?['\"][^'\"]+['\"])*"
_UNRECOGNIZED = re.compile(
    rf"Unrecognized keys?(?:\(s\))?(?: in object)?: ({_LIST})(?: at (\[[^\]]*\]|[\w.\"'\[\]]+))?"
)
# Each variant of a union has its own issues, most of them for fields that belong to another one.
_UNION = re.compile(r"invalid_union|unionErrors")
_QUOTED = re.compile(r"['\"]([^'\"]+)['\"]")
_STEP = re.compile(r"[^.,\s\[\]'\"]+")

# A key, and the steps to the object that holds it; None where the text does not say.
NamedKey = Tuple[str, Optional[List[str]]]


def unknown_places(text: str, body: Mapping[str, Any]) -> List[Path]:
    """Returns the paths in the body of the fields that the text of a refusal names.

    [] if it names none, or if it is not certain which one it means.
    """
    text = text.replace('\\"', '"')
    if _UNION.search(text):
        return []
    held = list(keys(body))
    unknown: List[Path] = []
    for key, steps in _named(text):
        places = [path for path, name in held if name == key and _is_at(path, steps)]
        if steps is None and len(places) > 1:
            places = [path for path in places if len(path) == 1]
        unknown += [path for path in places if path not in unknown]
    return unknown


def _named(text: str) -> Iterator[NamedKey]:
    issues = _ISSUE.findall(text)
    for issue in issues:
        keys_match, path = _KEYS.search(issue), _PATH.search(issue)
        if keys_match and path:
            yield from ((key, _steps(path[1])) for key in _QUOTED.findall(keys_match[1]))
    patterns = (_EXTRANEOUS,) if issues else (_EXTRANEOUS, _UNRECOGNIZED)
    for pattern in patterns:
        for match in pattern.finditer(text):
            names = _QUOTED.findall(match[1]) or _STEP.findall(match[1])
            steps = _steps(match[2]) if match[2] else None
            yield from ((key, steps) for key in names)


def _steps(path: str) -> List[str]:
    """`[]`, `["a", 0]`, `[a,0]`, `a[0].b` or `"a.b"` as a list of steps."""
    return _STEP.findall(path)


def _is_at(path: Path, steps: Optional[List[str]]) -> bool:
    return steps is None or [str(step) for step in path[:-1]] == steps
