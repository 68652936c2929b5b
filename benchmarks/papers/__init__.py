"""The five papers on real data: one module runs one paper's protocol and judges its claims.

``python -m benchmarks.papers NAME`` writes the page ``docs/papers/NAME.md``.
"""
