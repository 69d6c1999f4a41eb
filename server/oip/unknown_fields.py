"""Takes the fields that a message does not have out of its text.

The parser of protobuf could leave them alone by itself, but does not say which those are, and takes a list of messages
without a colon before it, as in `model_warmup [ { ... } ]`, for a mistake where it does not know the field.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

__all__ = ["stripped"]

# protobuf.dev/reference/protobuf/textformat-spec: comments, strings, names and numbers, anything else one by one. A
# string that does not end takes the rest of its line, so that no character is looked at more than a few times.
TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<text>"(?:[^"\n\\]|\\[^\n])*"|'(?:[^'\n\\]|\\[^\n])*')|["'][^\n]*|(?P<word>[\w.+-]+)|."""
)
CLOSES = {"{": "}", "<": ">", "[": "]"}


class Token(NamedTuple):
    """A piece of the text. kind: "text" of a string, "word" of a name or number, None of others."""

    shown: str
    start: int
    end: int
    kind: str | None


def stripped(text: str, message: type[Message]) -> tuple[str, list[str]]:
    """The text with blanks for what the message does not have, and the paths of that, such as "input.odd".

    What is no text of a message is left for the parser to find.
    """
    tokens = [
        Token(found.group(), found.start(), found.end(), found.lastgroup)
        for found in TOKEN.finditer(text)
        if not found.group().isspace() and not found.group().startswith("#")
    ]
    kept, paths, upto = list[str](), list[str](), 0
    whole: Any = message.DESCRIPTOR  # of one of two classes, by what protobuf is written in
    levels: list[tuple[Descriptor, str]] = [(whole, "")]  # the messages that are open, each with its path
    fields: list[FieldDescriptor | None] = [None]  # of each of them, the one whose value comes
    at = 0
    while at < len(tokens):
        token, path = tokens[at], levels[-1][1]
        at += 1
        if token.kind == "word" and at < len(tokens) and tokens[at].shown in (":", *CLOSES):
            fields[-1] = levels[-1][0].fields_by_name.get(token.shown)
            if fields[-1] is not None:
                continue
            end = after(tokens, at)
            if end is None:
                break
            at = end
            kept += [text[upto : token.start], re.sub(r"[^\n]", " ", text[token.start : tokens[at - 1].end])]
            upto = tokens[at - 1].end
            paths.append(f"{path}{token.shown}")
        elif token.shown in ("{", "<"):
            field = fields[-1]
            if field is None or field.message_type is None:
                break
            levels.append((field.message_type, f"{path}{field.name}."))
            fields.append(None)
        elif token.shown in ("}", ">"):
            if len(levels) == 1:
                break
            levels.pop()
            fields.pop()
    return "".join([*kept, text[upto:]]), paths


def after(tokens: Sequence[Token], at: int) -> int | None:
    """Where a field's value ends that begins there, with the separator that may follow; None where it does not end."""
    if tokens[at].shown == ":":
        at += 1
    if at < len(tokens) and tokens[at].shown in CLOSES:
        open_ = list[str]()
        while at < len(tokens):
            shown = tokens[at].shown
            at += 1
            if shown in CLOSES:
                open_.append(CLOSES[shown])
            elif shown in CLOSES.values():
                if open_.pop() != shown:
                    return None
                if not open_:
                    break
        if open_:
            return None
    elif at < len(tokens) and tokens[at].kind == "text":
        while at < len(tokens) and tokens[at].kind == "text":
            at += 1
    elif at < len(tokens) and tokens[at].kind == "word":
        at += 2 if tokens[at].shown == "-" and at + 1 < len(tokens) else 1
    else:
        return None
    return at + 1 if at < len(tokens) and tokens[at].shown in (",", ";") else at
