"""Switches between the recorded behaviour of the hosted service and that of an older data plane.

Each switch is True for what was recorded between October 2025 and May 2026, and False for what an
older or self-hosted data plane does, or what the documents say.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Iterable, List, Sequence, Union


@dataclass
class Behaviour:
    """The switches of one sandbox; a test may change them while it runs."""

    # A page with rows has a cursor (its last key), however short it is; an empty page has none.
    # False: only a page that was cut by its limit has one.
    cursor_with_each_page: bool = True
    # Each write of a row adds an entry to its audit_data. False: only writes that name a source do.
    audit_data_on_rows: bool = True
    # A new row without span_id gets a random one. False: its row id.
    random_span_ids: bool = True
    # POST of an existing slug writes a new version of the function or prompt, each version sets
    # `created`, and the answer of POST holds only what was sent and what the server set.
    # False: the object is returned unchanged with x-bt-found-existing, and `created` never changes.
    post_writes_versions: bool = True
    # Whole numbers inside functions and prompts lose their fraction: 1.0 is read as 1.
    whole_numbers_in_functions: bool = True
    # A list of prompts shows function_data. False: it is left out.
    prompts_show_function_data: bool = True
    # DELETE of a function or prompt answers a tombstone. False: the object.
    tombstone_of_functions: bool = True
    # POST of an experiment that exists returns it without x-bt-found-existing.
    experiments_without_found_header: bool = True
    # POST of a group answers without its members.
    groups_without_members: bool = True
    # On the control plane a missing object is 400 text that names the caller. False: 403 JSON.
    refusals_as_text: bool = True
    # An id that is no UUID is refused with 400 and a list of problems. False: as a missing object.
    ids_are_checked: bool = True
    # /logs3 answers the transaction. False: {"ids", "ok"}.
    logs3_answers_transaction: bool = True
    # Facets and classifications are shown in every shape of a query. False: in shape `traces` only
    # (stated by an employee of the vendor; no recording contradicts it).
    spans_show_facets: bool = True
    # A view without user_id belongs to the caller. False: to nobody.
    views_belong_to_caller: bool = True
    # Datasets have tags. False: the field is unknown.
    datasets_have_tags: bool = True
    # What the API of October 2026 added (by its schemas; not recorded): project groups, automations
    # of the organization, assignments of environments, description and star of views.
    # False: all of it is unknown.
    knows_october_2026: bool = True


NAMES: List[str] = [switch.name for switch in fields(Behaviour)]


def older(names: Iterable[str] = NAMES) -> Behaviour:
    """Returns the behaviour of an older data plane in the named switches only."""
    behaviour = Behaviour()
    for name in names:
        if name not in NAMES:
            raise ValueError("unknown switch '{}'; there are: {}".format(name, ", ".join(NAMES)))
        setattr(behaviour, name, False)
    return behaviour


def behaviour_of(wanted: Union[bool, Sequence[str]]) -> Behaviour:
    """Returns the default, or an older data plane in all switches (True) or in the named ones."""
    if isinstance(wanted, bool):
        return older() if wanted else Behaviour()
    return older(wanted)


def recorded() -> Behaviour:
    """Returns the behaviour of the hosted service."""
    return Behaviour(**dict.fromkeys(NAMES, True))
