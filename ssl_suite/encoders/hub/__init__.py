"""Encoders of the Hugging Face hub: `hf:NAME-OR-FOLDER` read into ours, and ours written as such a folder."""
