"""Reading and batching text data."""
