"""Verdicts follow from the figures of invented studies."""

from __future__ import annotations

import pandas as pd

from benchmarks.papers.amjad import claims as verdicts
from benchmarks.papers.amjad.protocol import LAYERS, PLACES, REFERENCES, Case, Study, methods
from benchmarks.papers.amjad.toys import Twins


def invented(seed: int, *, per_layer: float, pooled: float, apart: float = 3.0, zero: float = 0.5) -> Study:
    """A study whose figures are given, with a little noise over seeds."""
    noise = 0.01 * seed
    rows = [
        (r, place, method, 0.3, (pooled if place == "pooled" else per_layer) + noise, 0.1 + noise)
        for r in REFERENCES
        for place in PLACES
        for method in methods("relu")
    ]
    gaps = pd.DataFrame(rows, columns=["reference", "place", "method", "gap", "share", "beyond_random"])
    deletion = {"zero": zero + noise, "mean": 0.3}
    random = pd.DataFrame(
        [(r, p, deletion[r]) for r in REFERENCES for p in PLACES], columns=["reference", "place", "deletion"]
    )
    scores = pd.DataFrame(
        [(m, apart + noise, 0.9 + noise) for m in methods("relu")], columns=["method", "apart", "second_in_top_half"]
    )
    return Study(Case("mnist", "relu", seed), 0.95, 1.0, gaps, random, scores, dict.fromkeys(LAYERS, 0.1), 0.0, 1.0)


def verdict_of(**figures: float) -> dict[str, str]:
    studies = verdicts.Studies(invented(seed, **figures) for seed in range(5))
    twins = [Twins(0.0, 0.0, 0.04 + 0.001 * k, 0.1 + 0.01 * k) for k in range(5)]
    return {claim.id: claim.verdict for claim in verdicts.claims(studies, twins, 1e-6)}


def test_verdicts_follow_the_figures():
    good = verdict_of(per_layer=0.4, pooled=0.1)
    assert good == {
        "C2.1a": "holds",
        "C2.1b": "holds",
        "C2.2a": "holds",
        "C2.2b": "holds",
        "C2.3a": "holds",
        "C2.3b": "holds",
        "C2.4": "reported",
        "C2.5a": "holds",
        "C2.5b": "fails",
        "C2.5c": "holds",
        "C2.5d": "holds",
        "C2.6": "holds",
        "C2.7": "holds",
    }
    bad = verdict_of(per_layer=-0.4, pooled=0.1, apart=0.2, zero=0.1)
    assert {bad[id] for id in ("C2.1a", "C2.2a", "C2.2b", "C2.3a", "C2.3b", "C2.7")} == {"fails"}
    assert verdict_of(per_layer=-0.02, pooled=0.1)["C2.1a"] == "undecided"


def test_what_was_changed_after_a_first_run_stands_beside_the_claim():
    twins = [Twins(0.0, 0.0, 0.04, 0.1), Twins(0.0, 0.0, 0.05, 0.12)]
    notes = {claim.id: claim.note for claim in verdicts._toys(twins)}
    assert "changed from 0 to 0.001 after a first run on very small networks" in notes["C2.5b"]
    assert "against 0 the verdict would be *undecided*" in notes["C2.5b"]
    assert "wording of this claim was changed" in notes["C2.5c"]
