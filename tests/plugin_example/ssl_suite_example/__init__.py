"""A plug-in: an encoder, a method, a task and a data module of one's own; importing it defines them."""

from ssl_suite_example.data import Stripes
from ssl_suite_example.encoder import Patches
from ssl_suite_example.method import Inpaint
from ssl_suite_example.task import Angle, Direction

__all__ = ["Angle", "Direction", "Inpaint", "Patches", "Stripes"]
