"""Benchmarks: our time and that of the plain hook loop, and of rivals, measured in turns within one run."""
