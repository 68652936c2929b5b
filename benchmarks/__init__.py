"""Benchmarks: our time as a ratio to what everybody writes, side by side in one run."""
