"""Values inside the rows and attachments of the example: conversations, and awkward values.

Data, and the few lines that nest a value and draw a picture. A «label» is a mark as described in
`objects.py`.
"""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any, Dict, List, Tuple

# fmt: off
# intent, what the customer says, the tool that helps, the answer
TALKS: List[Tuple[str, str, str, str]] = [
    ("refund", "My flight {ref} was cancelled. Can I get my money back?", "lookup_booking",
     "I'm sorry about that. Your booking {ref} can be refunded in full, within seven working "
         "days."),
    ("luggage", "How many bags may I take on {ref}?", "search_policy",
     "One cabin bag of 8 kg and one checked bag of 23 kg."),
    ("seat", "Please put us next to each other, booking {ref} 🙏", "lookup_booking",
     "Done: you have 14A and 14B now."),
    ("delay", "We landed four hours late with {ref}. What now?", "search_policy",
     "You are entitled to 400 €. Shall I file the claim?"),
    ("pets", "Puis-je emmener mon chat ? Réf. {ref}", "search_policy",
     "Oui, en cabine, dans un sac de 8 kg au plus."),
    ("special", "אפשר לקבל ארוחה כשרה? {ref}", "lookup_booking", "נוספה ארוחה כשרה להזמנה {ref}."),
    ("other", "Are you a robot?", "search_policy",
        "Yes 🤖, and a person takes over whenever you like."),
]
TRIPS: List[Tuple[str, str]] = [
    ("京都で三日間、紅葉を見たい", "一日目は東福寺、二日目は嵐山、三日目は永観堂です。🍁"),
    ("子どもと沖縄へ行きます", "美ら海水族館と、浅い浜のビーチがおすすめです。"),
    ("雨の日の東京", "根津美術館のあと、神保町の喫茶店へ。☔"),
]
LOGGED_PROMPTS = {  # project -> the prompt that its logs used
    "support": "support/triage", "planner": "planner/itinerary", "library": "library/house_style"}
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5")
TAGS = ("golden", "v3", "needs review, urgent")
TIERS = ("gold", "silver", "basic", None)
ERRORS = ("TimeoutError: the model did not answer in 30 s",
          {"name": "RateLimitError", "status": 429, "retry": True})

WORDS = "The itinerary continues — see the next page. 旅 "
DEEP = 60  # levels of nesting
LONG = 300000  # characters


def nested(levels: int) -> Any:
    value: Any = "bottom"
    for level in range(levels):
        value = {"level": level, "next": value} if level % 2 else [value, level]
    return value


# row id, value. Each value is put into a log row, an experiment row and a dataset row with that id.
AWKWARD: List[Tuple[str, Any]] = [
    ("text/unicode", {"emoji": "👩‍👩‍👧‍👦🏳️‍🌈", "rtl": "שלום \u202eabc\u202c مرحبا",
                      "combining": "e\u0301 \u00e9", "spaces": "\u00a0\u2028\u2029\ufeff"}),
    ("text/control", {"nul": "before\u0000after", "controls": "\u0001\u001f\u007f\t\r\n\\n",
                      "html": "</script><!-- & \"'"}),
    ("text/surrogates", {"lone high": "\ud83d", "lone low": "x\ude00y", "pair": "\U0001f600",
                         "reversed": "\ude00\ud83d"}),
    ("text/empty", {"": "", "list": [], "object": {}, "nothing": None, "false": False, "zero": 0}),
    ("numbers/integers", [2 ** 53 + 1, 2 ** 63 - 1, 2 ** 63, 2 ** 64 + 1, -(2 ** 70), 10 ** 30, -1,
        0]),
    ("numbers/floats", [1e-320, -0.0, 0.0, 0.1, 1.0, 1, 1e22, 1.7976931348623157e308, 5e-324,
                        0.30000000000000004]),
    ("nulls", {"a": None, "b": [None, {"c": None}], "d": {"e": {"f": None}}}),
    ("keys.with.dots", {"a.b": {"c.d": 1}, 'q"uote': "'", "emoji 🔑": True, "back\\slash": 1,
        "a/b": 2,
                        "$ref": "#", "__proto__": {}, " ": 0}),
    ("deep", nested(DEEP)),
    ("text/long", (WORDS * 7000)[:LONG]),
    ("lists", [[], [[]], [1, "1", 1.0, True, None], list(range(200))]),
    ("dates", ["2025-10-01", "2025-10-01T08:30:00+01:00", "2025-02-30T00:00:00Z", "12:00"]),
    ("looks/like/ids", {
        "in text": "see project «support», dataset «support/tickets» and prompt «support/triage»",
        "in a link": "https://www.braintrust.dev/app/acme/p/x?r=«support/baseline»"}),
    ("attachments/deep", {"pages": [{"file": "«file:manual.reference»"},
                                    ["«file:voice.reference»",
                                        {"again": "«file:manual.reference»"}]],
                          "empty": "«file:empty.reference»", "odd name": "«file:odd.reference»"}),
    ("attachments/elsewhere", {
        "external": {"type": "external_attachment", "filename": "big.mov",
            "content_type": "video/quicktime",
                     "url": "s3://acme-media/big.mov"},
        "inline": {"type": "inline_attachment", "src": "data:text/plain;base64,aGVsbG8=",
                   "content_type": "text/plain", "filename": "hi.txt"},
        "not one": {"type": "braintrust_attachment"}}),
    ("prompt/as/logged", {"question": "With the prompt in metadata"}),
    ("people/to/review", {"question": "Who looks at this?"}),
    ("日本語/الرقم ١/🆔", "An id need not be a uuid"),
    (" id with spaces and 'quotes\" ", "nor be easy to quote"),
    ("x" * 200, "nor short"),
]
AWKWARD_IDS = frozenset(row_id for row_id, _ in AWKWARD)

# row id -> metadata, as the SDK and the review pages write it
AWKWARD_METADATA: Dict[str, Dict[str, Any]] = {
    "prompt/as/logged": {"prompt": {"id": "«support/triage»", "project_id": "«support»",
                                    "version": "«support/triage._xact_id»",
                                    "variables": {"question": "«support» is not an id here",
                                                  "today": "2025-10-01"}}},
    "people/to/review": {"~__bt_assignments": ["«user:ana.silva»", "«user:left.the.company»"],
                         "~__bt_review_lists": {"Weekly review": {"status": "PENDING"},
                                                "sprint 9": {"status": "COMPLETE"}}},
    "attachments/deep": {"screens": [{"shot": "«file:logo.reference»"}]},
    "nulls": {"model": None, "tier": None},
}
# fmt: on


def png_chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png(rng: random.Random, side: int) -> bytes:
    """A real picture of noise, side x side pixels."""
    lines = b"".join(
        b"\0" + rng.getrandbits(8 * 3 * side).to_bytes(3 * side, "big") for _ in range(side)
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, content) for name, content in chunks)


def files(rng: random.Random) -> List[Tuple[str, str, str, bytes]]:
    """(label, filename, content type, bytes), about 0.4 MB in all."""
    voice = rng.getrandbits(8 * 250000).to_bytes(250000, "big")
    # fmt: off
    return [
        ("logo", "logo.png", "image/png", png(rng, 96)),
        ("manual", "manual, v2.pdf", "application/pdf",
         b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n" + b"0 0 obj\n" * 8000 + b"%%EOF\n"),
        ("voice", "voice.wav", "audio/wav", b"RIFF" + struct.pack("<I",
            len(voice) + 4) + b"WAVE" + voice),
        ("notes", "メモ 📝.json", "application/json", '{"text": "メモ", "n": 1.0}'.encode()),
        ("odd", "../../etc/a \"b\"\\c?.txt", "text/plain; charset=utf-8",
            "line\r\nпривет\n".encode()),
        ("empty", "empty", "application/octet-stream", b""),
    ]
