"""Masking: what of its inputs an encoder does not see while it is fine-tuned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ssl_suite.core.encoder import Encoder, Tokens


class Masking(ABC):
    """Base of all; what it draws, it draws from the seeds of a batch, and waits for no device."""

    @abstractmethod
    def check(self, encoder: Encoder) -> None:
        """Raises UserError where it cannot be done to this encoder's inputs."""

    @abstractmethod
    def embed(self, encoder: Any, batch: Any) -> Tokens:
        """As `encoder.embed`, but for what is masked."""
