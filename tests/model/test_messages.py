"""The manual's table of messages: each is a message of the program, and no error is missing."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

import bt_migrate
from bt_migrate.model.messages import MESSAGES, Message

PACKAGE = Path(bt_migrate.__file__).parent
LISTED = [message for section in MESSAGES.values() for message in section]
# UsageErrors say themselves what to change; API errors quote the server.
ERRORS = "NetworkError StateError ConflictError LockedError LossError Interrupted".split()
LEAST_WORDS = 2  # of a text that is written in the code, not taken from another error


def trees() -> Iterator[Tuple[Path, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "sandbox" not in path.parts and path.name != "messages.py":
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def text_of(node: ast.AST) -> str:
    """A string of the code with … for each value in it; "" for any other expression."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "…" for part in node.values)
    return ""


def fits(message: Message, text: str) -> bool:
    """Whether the fixed parts of the message occur in the text, in their order."""
    parts = [re.escape(part.strip()) for part in message.text.split("…")]
    return re.search(".*".join(parts), text, re.DOTALL) is not None


def raised_texts() -> List[str]:
    found = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                text = text_of(node.args[0])
                if node.func.id in ERRORS and len(re.findall(r"[a-z]{2,}", text)) >= LEAST_WORDS:
                    found.append(f"{path.name}: {text}")
    return found


TEXTS = [text for _, tree in trees() for text in map(text_of, ast.walk(tree)) if text]


@pytest.mark.parametrize("message", LISTED, ids=lambda message: message.text)
def test_each_listed_message_is_one_of_the_program(message: Message) -> None:
    assert any(fits(message, text) for text in TEXTS)
    assert message.cause
    assert message.cure


@pytest.mark.parametrize("text", raised_texts())
def test_each_error_is_listed_with_its_cause_and_what_to_do(text: str) -> None:
    assert any(fits(message, text) for message in LISTED), "add a row to model/messages.py"
