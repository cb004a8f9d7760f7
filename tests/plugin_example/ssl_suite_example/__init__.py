"""A plug-in: encoders, a method, tasks and a data module of one's own; importing it defines them."""

from ssl_suite_example.data import Stripes
from ssl_suite_example.encoder import Patches
from ssl_suite_example.method import Inpaint
from ssl_suite_example.overlap import Overlap
from ssl_suite_example.task import Angle, Direction
from ssl_suite_example.upstream import Spectra

__all__ = ["Angle", "Direction", "Inpaint", "Overlap", "Patches", "Spectra", "Stripes"]
