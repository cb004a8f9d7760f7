"""How good encoders are: `ssl-suite bench`, the results store, the statistics over seeds, and the one-page HTML report.

How fast the suite is, beside its peers, is measured by the scripts of the checkout's `benchmarks/`.
"""
