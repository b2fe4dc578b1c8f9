"""What acts outside of Braintrust, or deletes, and the words of --activate for it. Pure."""

from __future__ import annotations

from typing import Any, Collection, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

RETENTION = "retention"
# An action or event that this version does not know.
OTHER = "other"
# Event of an automation -> the word for what it does by itself.
WORD_OF_EVENT: Mapping[str, str] = {"btql_export": "export", "retention": RETENTION}
# Events that act inside of Braintrust unless they have actions. As an online score does, they cost
# what the models that they use cost.
INSIDE = ("logs", "environment_update", "topic", "topic_digest", "windowed", "async_query")
# Type of an action -> its word.
WORD_OF_ACTION: Mapping[str, str] = {"webhook": "webhook", "slack": "slack", "pagerduty": "pager"}
# The words of --activate, and what each stands for.
ACTIVATION_WORDS: Mapping[str, str] = {
    "webhook": "requests to an address",
    "slack": "messages to Slack",
    "pager": "PagerDuty incidents",
    "export": "exports to a bucket",
    RETENTION: "rules that delete old rows, of projects and of the organization",
    OTHER: "actions that this version does not know",
}


def acts_outside(obj: Mapping[str, Any]) -> Tuple[str, ...]:
    """Returns the --activate words for what an automation does outside or deletes.

    () if it acts inside of Braintrust only.
    """
    config = obj.get("config")
    if not isinstance(config, dict):
        return (OTHER,)
    return tuple(word for word in ACTIVATION_WORDS if word in set(_words(config)))


def _words(config: Dict[str, Any]) -> Iterator[str]:
    event = str(config.get("event_type"))
    if event in WORD_OF_EVENT or event not in INSIDE:
        yield WORD_OF_EVENT.get(event, OTHER)
    actions = config.get("actions")
    for action in [config.get("action"), *(actions if isinstance(actions, list) else ())]:
        if action is not None:
            kind = action.get("type") if isinstance(action, dict) else None
            yield WORD_OF_ACTION.get(str(kind), OTHER)


def acts_not(obj: Mapping[str, Any]) -> Tuple[str, ...]:
    return ()


def missing_words(words: Sequence[str], activated: Collection[str]) -> List[str]:
    """The words without which the object is not created."""
    return [word for word in words if word not in activated]


def deletes_rows(words: Sequence[str]) -> bool:
    return RETENTION in words


def retention_of(obj: Mapping[str, Any]) -> Optional[Tuple[str, int]]:
    """(object_type, days) of a rule that deletes; None for anything else, and without such days."""
    config = obj.get("config")
    if not isinstance(config, dict) or config.get("event_type") != "retention":
        return None
    days = config.get("retention_days")
    is_number_of_days = isinstance(days, int) and not isinstance(days, bool) and days >= 0
    return (
        (str(config.get("object_type")), days)
        if is_number_of_days and isinstance(days, int)
        else None
    )
