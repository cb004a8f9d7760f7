"""Transcripts with marks around their slots: `play <artist>westbam</artist> on <service>google music</service>`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ssl_suite.core.errors import UserError
from ssl_suite.data.common.kinds import Characters

MARK = re.compile(r"(</?[^<>/\s]+>)")


class Marked(Characters):
    """(L) the characters of a transcript and the marks between them, each one label."""

    name = "marked"

    def read(self) -> list[list[str]]:  # type: ignore[override]
        said = []
        for i, text in enumerate(self.rows.column(self.column)):
            where = self.rows.where(i)
            if not (labels := "".join(self._labels(str(text or ""), where))).strip():
                raise UserError(f"{where}: {self.column!r} has no words; give each row a transcript.")
            said.append(
                [part for piece in MARK.split(labels.strip()) for part in ([piece] if MARK.match(piece) else piece)]
            )
        return said

    def _labels(self, text: str, where: str) -> Iterator[str]:
        """Marks as they are, and what is between them normalised, with its spaces at either end.

        Raises:
            UserError: a slot that begins does not end, or ends without a beginning.
        """
        inside: str | None = None
        for piece in MARK.split(text):
            if MARK.match(piece):
                name = piece.strip("</>")
                if (inside is None) == piece.startswith("</") or inside not in (None, name):
                    raise UserError(
                        f"{where}: {piece} in {text[:60]!r} stands where no slot can; write <{name}>…</{name}>."
                    )
                inside = name if inside is None else None
                yield piece
            else:
                words = self.clean(piece)
                first, last = (" " if edge.isspace() else "" for edge in (piece[:1], piece[-1:]))
                yield f"{first}{words}{last}" if words else first or last
        if inside is not None:
            raise UserError(f"{where}: <{inside}> in {text[:60]!r} is never closed; write </{inside}>.")

    def ordered(self, names: set[str]) -> list[str]:
        """Characters by code, then marks."""
        return sorted(names, key=lambda name: (len(name) > 1, name))
