"""What one learns from encoders: similarity of layers, rank, landscapes, probes over checkpoints, senses, languages.

Each analysis takes encoders and data and returns `Findings`: rows, figures and a sentence, which `publish` writes.
"""
