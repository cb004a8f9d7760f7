"""Synthetic questions: a line of a document with a name or number blanked out, answered by the lines before it."""

from __future__ import annotations

import re
from typing import Any

BLANK = "XXXXX"
CANDIDATE = re.compile(r"(?<=\w\s)(?:[A-Z][a-z]+|\d[\d,.]*\d|\d)\b")
"""A capitalised word or a number that does not begin a sentence."""


def cloze(documents: list[str], names: list[str], lines: int = 5) -> dict[str, list[Any]]:
    """Makes cloze questions in the manner of the Children's Book Test (Hill et al. 2016, arXiv:1511.02301).

    Every second line is a question, the `lines` lines before it its context. One capitalised word or number of the
    question that the context has too is replaced by XXXXX; it is the answer, wherever the context has it, nearest
    first. Lines without such a word are left out. These are not questions that people asked: they show that a model
    reads, not how well it answers.

    Args:
        documents: texts of one sentence or verse a line.
        names: of each document, for the ids.
        lines: of a context.

    Returns:
        columns as `read_questions`.
    """
    columns: dict[str, list[Any]] = {"id": [], "question": [], "context": [], "answers": []}
    for name, document in zip(names, documents, strict=True):
        sentences = [s.strip() for s in document.splitlines() if s.strip()]
        for at in range(lines, len(sentences), 2):
            context, question = " ".join(sentences[at - lines : at]), sentences[at]
            for match in CANDIDATE.finditer(question):
                word = match.group()
                starts = [m.start() for m in re.finditer(rf"\b{re.escape(word)}\b", context)]
                if starts:
                    columns["id"].append(f"{name}:{at}")
                    columns["question"].append(re.sub(rf"\b{re.escape(word)}\b", BLANK, question))
                    columns["context"].append(context)
                    columns["answers"].append({"text": [word] * len(starts), "answer_start": starts[::-1]})
                    break
    return columns
