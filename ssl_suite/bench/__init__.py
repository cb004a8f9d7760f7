"""Benchmarks: the results store, the statistics over seeds, and the one-page HTML report."""
