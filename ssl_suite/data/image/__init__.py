"""Reading and batching image data."""
