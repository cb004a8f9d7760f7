"""Data modules: the embedded samples, a user's own folders and files, and hub data sets, through one code path."""
