"""BTQL text, native clauses or simple SQL, to the JSON form that the official SDKs send.

A parsed query is {"select", "from", "filter", "sort", "limit", "cursor", ...}; an expression is
{"op": ..., ...} as in that form.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, NamedTuple, Optional

from bt_migrate.sandbox.data.errors import Refused

Json = Dict[str, Any]

TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*)
    |(?P<string>'(?:''|\\.|[^'\\])*')
    |(?P<quoted>"(?:""|[^"])*")
    |(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    |(?P<word>[A-Za-z_~][A-Za-z_0-9~]*)
    |(?P<sign>=>|!=|<>|<=|>=|[=<>+\-*/%()\[\],.|:;])""",
    re.VERBOSE | re.DOTALL,
)
COMPARISONS = {"=": "eq", "!=": "ne", "<>": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
WORD_COMPARISONS = {
    "like": "like",
    "ilike": "ilike",
    "match": "match",
    "includes": "includes",
    "contains": "includes",
}
SUMS = {"+": "add", "-": "sub"}
PRODUCTS = {"*": "mul", "/": "div", "%": "mod"}
NATIVE_CLAUSES = frozenset(
    "select from filter sort limit cursor dimensions measures final_filter preview_length".split()
)
SHAPES = ("spans", "traces", "summary")
UNITS = frozenset("second minute hour day week month year".split())


class Token(NamedTuple):
    kind: str  # string, quoted, number, word, sign, end
    text: str
    new_line: bool  # whether a line break precedes it
    start: int


def syntax_error(message: str) -> Refused:
    return Refused(
        400,
        {
            "Code": "BadRequestError",
            "Message": "BTQL: " + message,
            "Path": "/btql",
            "Service": "api",
        },
    )


def tokens_of(text: str) -> List[Token]:
    tokens: List[Token] = []
    position, new_line = 0, True
    while position < len(text):
        match = TOKEN.match(text, position)
        if not match:
            raise syntax_error(f"cannot read {text[position : position + 20]!r}")
        kind = str(match.lastgroup)
        if kind == "space":
            new_line = new_line or "\n" in match.group()
        else:
            tokens.append(Token(kind, match.group(), new_line, match.start()))
            new_line = False
        position = match.end()
    return tokens + [Token("end", "", True, position)]


ESCAPES = {"'": "'", "\\": "\\", "n": "\n", "t": "\t", "r": "\r"}


def string_value(text: str) -> str:
    """The value of a quoted string; both '' and \\' stand for a quote."""

    def unescape(match: Any) -> str:
        return ESCAPES.get(match.group(1), match.group()) if match.group(1) else "'"

    return re.sub(r"\\(.)|''", unescape, text[1:-1], flags=re.DOTALL)


def parse(text: str) -> Json:
    """Returns the query in JSON form. Raises Refused with status 400 if it cannot be parsed."""
    parser = Parser(text)
    is_sql = parser.is_word("select") and parser.tokens[1].text != ":"
    query = parser.sql() if is_sql else parser.native()
    parser.take_if(";")
    if parser.token.kind != "end":
        raise syntax_error(f"unexpected {parser.token.text!r}")
    return query


def parse_expression(text: str) -> Json:
    parser = Parser(text)
    expression = parser.expression()
    if parser.token.kind != "end":
        raise syntax_error(f"unexpected {parser.token.text!r}")
    return expression


def parse_source(text: str) -> Json:
    return Parser(text).source()


class Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens_of(text)
        self.position = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def take(self) -> Token:
        token = self.token
        self.position += 1
        return token

    def is_word(self, *words: str) -> bool:
        return self.token.kind == "word" and self.token.text.lower() in words

    def take_word(self, *words: str) -> bool:
        if self.is_word(*words):
            self.position += 1
            return True
        return False

    def take_if(self, sign: str) -> bool:
        if self.token.kind == "sign" and self.token.text == sign:
            self.position += 1
            return True
        return False

    def expect(self, sign: str) -> None:
        if not self.take_if(sign):
            raise syntax_error(f"expected {sign!r}, got {self.token.text!r}")

    # -- queries

    def native(self) -> Json:
        query: Json = {}
        while self.token.kind != "end":
            separated = self.take_if("|") or self.token.new_line
            name = self.take().text.lower()
            if not separated or name not in NATIVE_CLAUSES or not self.take_if(":"):
                raise syntax_error(f"expected a clause, got {name!r}")
            if name in query:
                raise syntax_error(f"clause {name!r} is given twice")
            query[name] = self.clause(name)
        return query

    def clause(self, name: str) -> Any:
        if name == "from":
            return self.source()
        if name in ("filter", "final_filter"):
            return self.expression()
        if name == "sort":
            return self.sort()
        if name in ("limit", "preview_length"):
            return self.integer()
        if name == "cursor":
            return self.string("cursor")
        return self.items()

    def sql(self) -> Json:
        self.take_word("select")
        query: Json = {"select": self.items()}
        if self.take_word("from"):
            query["from"] = self.source()
        if self.take_word("where"):
            query["filter"] = self.expression()
        if self.take_word("group"):
            self.expect_word("by")
            query["dimensions"] = self.items()
        if self.take_word("having"):
            query["final_filter"] = self.expression()
        if self.take_word("order"):
            self.expect_word("by")
            query["sort"] = self.sort()
        if self.take_word("limit"):
            query["limit"] = self.integer()
        if self.take_word("offset"):
            query["cursor"] = self.string("OFFSET")
        query["sql"] = True
        return query

    def expect_word(self, word: str) -> None:
        if not self.take_word(word):
            raise syntax_error(f"expected {word.upper()}, got {self.token.text!r}")

    def integer(self) -> int:
        sign = -1 if self.take_if("-") else 1
        token = self.take()
        if not token.text.isdigit():
            raise syntax_error(f"expected a whole number, got {token.text!r}")
        return sign * int(token.text)

    def string(self, name: str) -> str:
        token = self.take()
        if token.kind != "string":
            raise syntax_error(f"{name} must be a string, got {token.text!r}")
        return string_value(token.text)

    def source(self) -> Json:
        token = self.take()
        if token.kind != "word":
            raise syntax_error(f"expected what to read from, got {token.text!r}")
        self.expect("(")
        arguments: List[Json] = []
        shape: Optional[str] = None
        while not self.take_if(")"):
            if self.is_word("shape") and self.tokens[self.position + 1].text == "=>":
                self.position += 2
                shape = self.string("shape")
            else:
                arguments.append({"op": "literal", "value": self.string("an id")})
            self.take_if(",")
        if self.is_word(*SHAPES):
            shape = self.take().text.lower()
        name = {"op": "ident", "name": [token.text.lower()]}
        return {"op": "function", "name": name, "args": arguments, "shape": shape}

    def items(self) -> List[Json]:
        items = [self.item()]
        while self.take_if(","):
            items.append(self.item())
        return items

    def item(self) -> Json:
        if self.token.text == "*":
            self.take()
            return {"op": "star"}
        start = self.token.start
        expression = self.expression()
        text = self.text[start : self.token.start].strip().rstrip("|").strip()
        alias = expression["name"][-1] if expression["op"] == "ident" else text
        if self.take_word("as"):
            token = self.take()
            if token.kind not in ("word", "quoted"):
                raise syntax_error(f"expected a name after AS, got {token.text!r}")
            alias = token.text.strip('"')
        return {"alias": alias, "expr": expression}

    def sort(self) -> List[Json]:
        terms: List[Json] = []
        while not terms or self.take_if(","):
            expression = self.expression()
            descending = self.is_word("desc")
            self.take_word("asc", "desc")
            terms.append({"expr": expression, "dir": "desc" if descending else "asc"})
        return terms

    # -- expressions

    def expression(self) -> Json:
        left = self.conjunction()
        while self.take_word("or"):
            left = {"op": "or", "left": left, "right": self.conjunction()}
        return left

    def conjunction(self) -> Json:
        left = self.negation()
        while self.take_word("and"):
            left = {"op": "and", "left": left, "right": self.negation()}
        return left

    def negation(self) -> Json:
        if self.take_word("not"):
            return {"op": "not", "expr": self.negation()}
        return self.comparison()

    def comparison(self) -> Json:
        left = self.sum()
        if self.token.text in COMPARISONS and self.token.kind == "sign":
            return {"op": COMPARISONS[self.take().text], "left": left, "right": self.sum()}
        if self.take_word("is"):
            op = "isnotnull" if self.take_word("not") else "isnull"
            self.expect_word("null")
            return {"op": op, "expr": left}
        negated = self.is_word("not") and self.take_word("not")
        result = self._word_comparison(left)
        return {"op": "not", "expr": result} if negated else result

    def _word_comparison(self, left: Json) -> Json:
        if self.take_word("in"):
            return {"op": "in", "left": left, "right": self.list_of_values()}
        if self.take_word("between"):
            low = self.sum()
            self.expect_word("and")
            above = {"op": "ge", "left": left, "right": low}
            return {
                "op": "and",
                "left": above,
                "right": {"op": "le", "left": left, "right": self.sum()},
            }
        if self.is_word(*WORD_COMPARISONS):
            return {
                "op": WORD_COMPARISONS[self.take().text.lower()],
                "left": left,
                "right": self.sum(),
            }
        return left

    def list_of_values(self) -> Json:
        closing = "]" if self.take_if("[") else ")"
        if closing == ")":
            self.expect("(")
        values: List[Any] = []
        while not self.take_if(closing):
            value = self.sum()
            if value["op"] != "literal":
                raise syntax_error("IN takes a list of literals")
            values.append(value["value"])
            self.take_if(",")
        return {"op": "literal", "value": values}

    def sum(self) -> Json:
        left = self.product()
        while self.token.kind == "sign" and self.token.text in SUMS:
            left = {"op": SUMS[self.take().text], "left": left, "right": self.product()}
        return left

    def product(self) -> Json:
        left = self.unary()
        while self.token.kind == "sign" and self.token.text in PRODUCTS:
            left = {"op": PRODUCTS[self.take().text], "left": left, "right": self.unary()}
        return left

    def unary(self) -> Json:
        if not self.take_if("-"):
            return self.atom()
        value = self.unary()
        if value["op"] != "literal" or not isinstance(value["value"], (int, float)):
            raise syntax_error("'-' needs a number")
        return {"op": "literal", "value": -value["value"]}

    def atom(self) -> Json:
        token = self.take()
        if token.kind == "string":
            return {"op": "literal", "value": string_value(token.text)}
        if token.kind == "number":
            is_whole = token.text.isdigit()
            return {"op": "literal", "value": int(token.text) if is_whole else float(token.text)}
        if token.text == "(":
            inner = self.expression()
            self.expect(")")
            return inner
        if token.text == "[":
            self.position -= 1
            return self.list_of_values()
        if token.text == "*":
            return {"op": "star"}
        if token.kind not in ("word", "quoted"):
            raise syntax_error(f"unexpected {token.text or 'end of the query'!r}")
        return self._named(token)

    def _named(self, token: Token) -> Json:
        word = token.text.lower() if token.kind == "word" else ""
        if word in ("null", "true", "false"):
            return {"op": "literal", "value": {"null": None, "true": True, "false": False}[word]}
        if word == "interval":
            return self.interval()
        if word and self.take_if("("):
            return {
                "op": "function",
                "name": {"op": "ident", "name": [word]},
                "args": self.arguments(),
            }
        path: List[Any] = [_name(token)]
        while self.take_if("."):
            path.append(_name(self.take()))
        return {"op": "ident", "name": path}

    def arguments(self) -> List[Json]:
        arguments: List[Json] = []
        while not self.take_if(")"):
            arguments.append(self.expression())
            if not self.take_if(",") and self.token.text != ")":
                raise syntax_error(f"expected ',' or ')', got {self.token.text!r}")
        return arguments

    def interval(self) -> Json:
        token = self.take()
        text = string_value(token.text) if token.kind == "string" else token.text
        words = text.lower().split()
        if len(words) == 1:
            words.append(self.take().text.lower())
        if not words or not words[0].isdigit() or words[1].rstrip("s") not in UNITS:
            raise syntax_error(f"expected INTERVAL and a number and a unit, got {text!r}")
        return {"op": "interval", "value": int(words[0]), "unit": words[1].rstrip("s")}


def _name(token: Token) -> str:
    if token.kind not in ("word", "quoted"):
        raise syntax_error(f"expected a name, got {token.text!r}")
    return token.text[1:-1].replace('""', '"') if token.kind == "quoted" else token.text
