"""ssl_suite: self-supervised learning on text, images and speech through one interface."""

__version__ = "0.1.0"
