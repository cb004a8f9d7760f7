"""What a user did wrong, in one sentence."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable

MOST = 20
"""Names that a sentence lists."""


class UserError(Exception):
    """A mistake the user can mend; the command line prints it as one line and exits with code 2."""


class BadItem(UserError):
    """One unreadable sample; skipped and counted if the user said `on_error: skip`."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns `` Did you mean X?``, or the list of what there is, unless long, when nothing resembles `name`."""
    known = sorted(set(known))
    lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {lower[close[0]]}?"
    return f" There is: {', '.join(known)}." if 0 < len(known) <= MOST else ""


class Interrupted(Exception):
    """A signal ended the run, its state saved where there is one.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int, kept: str) -> None:
        super().__init__(number, kept)  # what it is made of again in another process
        self.signal, self.kept = number, kept

    def __str__(self) -> str:
        return f"Stopped by {signal.Signals(self.signal).name}; {self.kept}"
