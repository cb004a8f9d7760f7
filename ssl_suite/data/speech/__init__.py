"""Reading and batching speech data."""
