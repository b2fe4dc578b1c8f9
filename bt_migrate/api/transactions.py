"""Transaction ids and pagination keys as numbers. Pure arithmetic, no API calls.

The encoding is that of the official `bt` tool (util_cmd) and of the SDK's xact_ids; see `xact_id`
in the API reference.
"""

from __future__ import annotations

# top 16 bits of every transaction id
XACT_PREFIX = 0x0DE1 << 48
XACT_DIGITS = 19
# A larger number is no transaction, and SQLite could not store it.
MAX_XACT = (1 << 63) - 1
SECONDS_MASK = 0xFFFFFFFF
# A version is also shown as 16 hex digits: the transaction multiplied by a constant, modulo 2^64.
PRETTY_DIGITS = 16
PRETTY_FACTOR = 205891132094649
PRETTY_INVERSE = 1522336535492693385
UINT64_MASK = (1 << 64) - 1
# zero padded, so that text order is number order
KEY_DIGITS = 20


def xact_of(value: object) -> int:
    """Returns the transaction (decimal text or int) as a number, 0 for anything else."""
    text = value if isinstance(value, str) else str(value)
    xact = int(text) if text.isdecimal() and len(text) <= XACT_DIGITS else 0
    return xact if xact <= MAX_XACT else 0


def xact_of_version(version: object) -> int:
    """Returns the transaction that a version names, in either form; 0 for anything else.

    A real transaction has 19 digits, so 16 characters are the form with hex digits.
    """
    text = version if isinstance(version, str) else str(version)
    if len(text) != PRETTY_DIGITS:
        return xact_of(text)
    try:
        return int(text, 16) * PRETTY_INVERSE & UINT64_MASK | XACT_PREFIX
    except ValueError:
        return 0


def version_like(version: object, xact: int) -> str:
    """Returns a transaction in the form in which `version` is written."""
    if isinstance(version, str) and len(version) == PRETTY_DIGITS:
        return f"{xact * PRETTY_FACTOR & UINT64_MASK:0{PRETTY_DIGITS}x}"
    return str(xact)


# assumption: transactions_tell_time
def xact_seconds(xact: int) -> int:
    """Unix seconds at which the server accepted the transaction."""
    return (xact >> 16) & SECONDS_MASK


def xact_at(unix_seconds: int) -> int:
    """The smallest transaction that the server can accept in that second."""
    return XACT_PREFIX | (unix_seconds & SECONDS_MASK) << 16


def before_xact(xact: int, seconds: float) -> int:
    """A transaction below all that the server accepted less than `seconds` before this one."""
    return xact_at(max(0, int(xact_seconds(xact) - seconds))) - 1


def is_key(text: str) -> bool:
    """Whether the text is a pagination key: `p` and digits."""
    return text.startswith("p") and text[1:].isdecimal()


def key_number(pagination_key: str) -> int:
    """Returns `p` + 20 digits as a number: unix seconds << 32 | counter << 16 | row.

    Raises ValueError for any other text.
    """
    if not is_key(pagination_key):
        raise ValueError(f"not a pagination key: {pagination_key[:40]!r}")
    return int(pagination_key[1:])


def pagination_key(number: int) -> str:
    """The inverse of `key_number`."""
    return f"p{number:0{KEY_DIGITS}d}"


def xact_of_key(key: str) -> int:
    """Returns the transaction that inserted the row; an edit of it is a later one."""
    return XACT_PREFIX | key_number(key) >> 16


def key_seconds(key: str) -> int:
    """Unix seconds at which the server accepted the row, 0 for any text that is no such key."""
    return int(key[1:]) >> 32 if is_key(key) else 0


def after_second(unix_seconds: int) -> str:
    """The key above which every row was accepted after that second."""
    return pagination_key(((unix_seconds + 1) << 32) - 1)


def after_transaction(xact: int) -> str:
    """The key above which every row was inserted after that transaction."""
    return pagination_key((((xact ^ XACT_PREFIX) + 1) << 16) - 1)


def key_before(key: str) -> str:
    """The key right before this one."""
    return pagination_key(key_number(key) - 1)
