"""Five papers on real data: one folder runs one paper's protocol and judges its claims.

``python -m benchmarks.papers NAME`` writes the page ``docs/papers/NAME.md``. ``common`` holds what the papers share,
``index`` what joins them on one page.
"""
