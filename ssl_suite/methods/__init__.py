"""Pretraining methods, one file each, by modality."""
