"""Columns that are kept beside a table, and read as they are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
"""Numbers of rows."""


class Column(Sequence[Any], ABC):
    """A value for each row of a split."""

    @abstractmethod
    def take(self, places: Places) -> Column:
        """Those of some rows."""


class Numbers(Column):
    """Arrays of whole numbers from 0, which were checked when they were written.

    Attributes:
        classes: how many numbers there are; all are below.
    """

    classes: int
