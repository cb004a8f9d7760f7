"""The official layouts by name."""

from __future__ import annotations

from ssl_suite.data.common.source import Layouts
from ssl_suite.data.text.layouts.deeploc import deeploc
from ssl_suite.data.text.layouts.nucleosome import nucleosome
from ssl_suite.data.text.layouts.tape import tape

LAYOUTS: Layouts = {"deeploc": deeploc, "nucleosome": nucleosome, "tape": tape}
"""A source is `NAME:FOLDER`, or `NAME/PART:FOLDER`, see each layout for its parts."""
