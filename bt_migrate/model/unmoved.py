"""What no move brings: kinds that the API lists and cannot make, and what no public route reads.

Data only, for the manual, for the findings, and for the comparison with an OpenAPI document.
"""

from __future__ import annotations

from typing import NamedTuple, Tuple


class Unmoved(NamedTuple):
    """A kind that stays. `path`: its list, "" where no public route reads it."""

    name: str
    path: str
    why: str
    # What a person has to do.
    next: str
    # The kind of the finding for each object of the list; "" for none.
    finding: str = ""


UNMOVED: Tuple[Unmoved, ...] = (
    Unmoved(
        "service_tokens", "/v1/service_token", "its key is shown once, when it is made",
        "make a new one by hand: its key is shown once", "not_movable",
    ),
    Unmoved(
        "api_keys", "/v1/api_key", "it is valid in its own organization only",
        "its owner must create a new one: its key is shown once", "key_to_make",
    ),
    Unmoved(
        "users", "/v1/user", "they are members by invitation, and keep their own account",
        "invite them, then run the same command again: what names them is completed",
    ),
    Unmoved(
        "organization settings", "/v1/organization",
        "the URLs and flags of its data plane would break the destination",
        "set the image rendering mode by hand, if it is not the default",
    ),
    Unmoved(
        "code bundles", "", "no route reads the code, only its id and a preview",
        "push the functions again from their repository (braintrust push)",
    ),
    Unmoved(
        "topic map artefacts", "", "they lie in the storage of the source",
        "let the destination compute the topics again",
    ),
    Unmoved(
        "playgrounds", "", "no route lists or makes them; ACLs and views may name them",
        "rebuild those that people still need, from their prompts and datasets",
    ),
    Unmoved(
        "audit history", "", "it can be read with rows and cannot be written",
        "keep the source, or an export of it, to look things up",
    ),
    Unmoved(
        "classifications of rows", "", "no insert takes them",
        "let the topics run again in the destination",
    ),
    Unmoved(
        "creation dates of objects", "", "the server sets them; rows keep theirs",
        "nothing",
    ),
    Unmoved(
        "custom columns, and defaults of a person", "", "no route reads them",
        "set them again in the user interface",
    ),
    Unmoved(
        "sign-ins to MCP servers", "", "they belong to one person and one organization",
        "sign in again",
    ),
    Unmoved(
        "billing, plans, sign-on and data plane", "", "no route of the API has them",
        "have them set up for the destination before the move",
    ),
)  # fmt: skip
# Kinds of objects that are listed in the source, with a finding for each.
LISTED_ONLY = tuple(kind for kind in UNMOVED if kind.finding)
