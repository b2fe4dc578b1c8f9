"""What cannot be moved: kinds that the API lists but cannot create, or that no route reads.

Data only, for the manual, for the findings, and for the comparison with an OpenAPI document.
"""

from __future__ import annotations

from typing import NamedTuple, Tuple


class Unmoved(NamedTuple):
    """A kind that is not moved. `path` lists it, "" if no public route reads it."""

    name: str
    path: str
    why: str
    # What a person has to do.
    next: str
    # The kind of the finding for each object of the list; "" for none.
    finding: str = ""


UNMOVED: Tuple[Unmoved, ...] = (
    Unmoved(
        "service_tokens", "/v1/service_token", "its key is shown only when it is created",
        "create a new token, and copy its key when it is shown", "not_movable",
    ),
    Unmoved(
        "api_keys", "/v1/api_key", "it is valid in its own organization only",
        "its owner must create a new key, and copy it when it is shown", "key_to_make",
    ),
    Unmoved(
        "users", "/v1/user", "an account belongs to a person, who becomes a member by invitation",
        "invite them, then run the same command again: it adds the references to them",
    ),
    Unmoved(
        "organization settings", "/v1/organization",
        "they hold the URLs and flags of the data plane, which are different in the destination",
        "set the image rendering mode by hand, if it is not the default",
    ),
    Unmoved(
        "code bundles", "", "no route reads the code, only its id and a preview",
        "push the functions again from their repository (braintrust push)",
    ),
    Unmoved(
        "topic map artefacts", "", "they are in a storage that the API cannot read",
        "let the destination compute the topics again",
    ),
    Unmoved(
        "playgrounds", "", "no route lists or creates them; ACLs and views may refer to them",
        "rebuild those that people still need, from their prompts and datasets",
    ),
    Unmoved(
        "audit history", "", "it can be read with the rows, but not written",
        "keep the source, or an export of it, to look things up",
    ),
    Unmoved(
        "classifications of rows", "", "no insert accepts them",
        "let the topics run again in the destination",
    ),
    Unmoved(
        "creation dates of objects", "", "the server sets them; rows keep theirs",
        "nothing",
    ),
    Unmoved(
        "custom columns, and defaults of a user", "", "no route reads them",
        "set them again in the user interface",
    ),
    Unmoved(
        "sign-ins to MCP servers", "", "a sign-in belongs to one user in one organization",
        "sign in again",
    ),
    Unmoved(
        "billing, plans, sign-on and data plane", "", "no route of the API has them",
        "have them set up in the destination before the move",
    ),
)  # fmt: skip
# Kinds of objects that are listed in the source, with a finding for each.
LISTED_ONLY = tuple(kind for kind in UNMOVED if kind.finding)
