"""Encoders: one transformer trunk, text, images (any timm backbone), speech, and the simple baselines."""
