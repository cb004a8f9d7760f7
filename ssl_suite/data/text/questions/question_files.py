"""Reading questions: SQuAD's JSON (1.1 and 2.0; XQuAD, DRCD and CMRC 2018 share it), CMRC's older one, and tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.files import PLAIN, Form, columns_of, read_rows, read_utf8, suffix_of
from ssl_suite.data.common.source import Rows


class Gold(NamedTuple):
    """A right answer: its text and the character of the context it starts at."""

    text: str
    start: int


def read_questions(path: Path, form: Form = PLAIN) -> dict[str, list[Any]]:
    """Reads a file of questions as columns id, question, context and answers ({"text": [...], "answer_start": [...]}).

    Args:
        path: SQuAD's JSON, CMRC 2018's older JSON, or a jsonl, json, csv or tsv table with these columns.
        form: of a csv or tsv file.

    Raises:
        UserError: it is a folder without files named after splits, is no JSON, or an entry lacks something.
    """
    if path.is_dir():
        raise UserError(f"{path} holds no file named after a split (train-v1.1.json, dev.json, test.parquet, ...).")
    if suffix_of(path) == ".json":
        text = read_utf8(path)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            content = None
            if text.lstrip().startswith("{") and "\n{" not in text.strip():  # not one object a line either
                raise UserError(f"{path} is not JSON ({error}); mend it or fetch it again.") from None
        if isinstance(content, dict) and isinstance(content.get("data"), list):
            return columns_of([row for i, a in enumerate(content["data"]) for row in _article(f"{path}, data[{i}]", a)])
        if isinstance(content, list) and content and isinstance(content[0], dict) and "context_text" in content[0]:
            return columns_of([row for i, entry in enumerate(content) for row in _old_cmrc(f"{path}, [{i}]", entry)])
    return columns_of(read_rows(path, form))


def _article(place: str, article: Any) -> list[dict[str, Any]]:
    rows = []
    for i, paragraph in enumerate(_get(place, article, "paragraphs", list)):
        inside = f"{place}.paragraphs[{i}]"
        context = _get(inside, paragraph, "context", str)
        for j, asked in enumerate(_get(inside, paragraph, "qas", list)):
            where = f"{inside}.qas[{j}]"
            row = {"id": str(_get(where, asked, "id", (str, int))), "question": _get(where, asked, "question", str)}
            answers: Any = asked.get("answers")
            if asked.get("is_impossible"):
                answers = []
            if answers is not None:
                texts = [_get(where, a, "text", str) for a in answers]
                answers = {"text": texts, "answer_start": [_get(where, a, "answer_start", int) for a in answers]}
            rows.append(row | {"context": context, "answers": answers})
    return rows


def _old_cmrc(place: str, entry: Any) -> list[dict[str, Any]]:
    """CMRC 2018's first layout: answers are texts alone, each at its first place in the context (−1: nowhere)."""
    rows = []
    context = _get(place, entry, "context_text", str)
    for j, asked in enumerate(_get(place, entry, "qas", list)):
        where = f"{place}.qas[{j}]"
        row = {"id": str(_get(where, asked, "query_id", (str, int))), "question": _get(where, asked, "query_text", str)}
        texts = _get(where, asked, "answers", list) if "answers" in asked else None
        if not all(isinstance(text, str) for text in texts or ()):
            raise UserError(f"{where}: 'answers' must be a list of texts; mend it.")
        answers = None if texts is None else {"text": texts, "answer_start": [context.find(text) for text in texts]}
        rows.append(row | {"context": context, "answers": answers})
    return rows


def _get(place: str, holder: Any, name: str, kind: type | tuple[type, ...]) -> Any:
    value = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(value, kind):
        raise UserError(f"{place} has no {name!r} as the official files do; mend it.")
    return value


def golds(rows: Rows, index: int) -> list[Gold] | None:
    """The right answers of a row, none where there is no answer; None where the row does not say.

    Raises:
        UserError: the column holds something else.
    """
    value = rows.column("answers")[index] if "answers" in rows.columns else None
    if value is None:
        return None
    pairs = zip(value.get("text", []), value.get("answer_start", []), strict=False) if isinstance(value, dict) else None
    if pairs is None and isinstance(value, list) and all(isinstance(a, dict) for a in value):
        pairs = ((a.get("text"), a.get("answer_start", a.get("start"))) for a in value)  # type: ignore[assignment]
    found = [Gold(text, start) for text, start in pairs] if pairs is not None else [None]
    if not all(g is not None and isinstance(g.text, str) and isinstance(g.start, int) for g in found):
        raise UserError(f'{rows.where(index)}: \'answers\' must be {{"text": [...], "answer_start": [...]}}.')
    return found  # type: ignore[return-value]


def locate(context: str, gold: Gold) -> Gold | None:
    """The answer where the context has it: at its start, else the nearest place; None if nowhere.

    Official files hold some that are off by a few characters, or by outer spaces.
    """
    if gold.start >= 0 and gold.text and context.startswith(gold.text, gold.start):
        return gold
    for text in (gold.text, gold.text.strip()):
        starts = [m.start() for m in re.finditer(f"(?={re.escape(text)})", context)] if text else []
        if starts:
            return Gold(text, min(starts, key=lambda s: abs(s - gold.start)))
    return None
