"""Template: from a row to a prompt: column names in braces, one of them the answer's place."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

from ssl_suite.core.errors import UserError, nearest
from ssl_suite.data.common.source import Rows


class Template:
    """`{text} It was {label}.`: what stands before the answer is the context, answer and rest are scored.

    Args:
        text: of the template; `{{` and `}}` stand for braces.
        answer: name of the column whose place is the answer's.
    """

    def __init__(self, text: str, answer: str) -> None:
        self.answer = answer
        try:
            self.parts = [(literal, name) for literal, name, _, _ in Formatter().parse(text)]
        except ValueError as error:
            raise UserError(f"template {text!r} is broken ({error}); write columns as {{name}}.") from None
        names = [name for _, name in self.parts if name is not None]
        if names.count(answer) != 1:
            raise UserError(f"template {text!r} must have {{{answer}}} once: the answer's place (data.target).")
        self.columns = [name for name in names if name != answer]

    def check(self, rows: Rows) -> None:
        """Raises UserError unless `rows` have every column, each with a value in every row."""
        for name in self.columns:
            if name not in rows.columns:
                raise UserError(f"{rows.name} has no column {name!r} of the template.{nearest(name, rows.columns)}")
            for i, value in enumerate(rows.column(name)):
                if value is None or isinstance(value, (list, dict)):
                    raise UserError(f"{rows.where(i)}: {name!r} holds {repr(value)[:60]}, not a text for the template.")

    def fill(self, row: Mapping[str, Any], answer: str) -> tuple[str, str]:
        """Returns the text before the answer, and the answer with all that follows it."""
        sides = ["", ""]
        side = 0
        for literal, name in self.parts:
            sides[side] += literal
            if name == self.answer:
                side = 1
                sides[1] += answer
            elif name is not None:
                sides[side] += str(row[name])
        return sides[0], sides[1]


def split_spaces(context: str, continuation: str) -> tuple[str, str]:
    """Moves the spaces at the end of the context to the continuation, where tokenizers keep them."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation
