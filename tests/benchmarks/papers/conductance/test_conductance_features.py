"""The paper's table, as quoted."""

from __future__ import annotations

from benchmarks.papers.conductance.features import PUBLISHED


def test_the_published_table_has_the_order_that_the_claim_states():
    means = PUBLISHED.set_index(["task", "method"]).mean(axis=1)
    for task in ("water vessels", "random labels"):
        own = means[task]
        assert own["conductance"] > own["gradient x activation"] > own["internal influence"] > own["activation"]
