"""Sums over samples, collected in one pass over the data and merged with ``+``, and the intervals of their means."""
