"""Extractive question answering: files of questions, and windows over their contexts."""
