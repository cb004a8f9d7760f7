"""Encoders of hubs: `hf:NAME-OR-FOLDER` and `torchaudio:PIPELINE` read into ours, and ours written for transformers."""
