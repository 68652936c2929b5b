"""The replication of Amjad, Liu and Geiger: its toys have known answers, its verdicts follow from the figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.papers.amjad import toys, verdicts
from benchmarks.papers.amjad.protocol import LAYERS, PLACES, REFERENCES, Case, Study, _violation, methods, plane
from benchmarks.papers.amjad.toys import Twins
from benchmarks.papers.networks import mlp
from benchmarks.papers.scale import Scale


def test_twins_leave_the_network_as_it_was():
    network = mlp(6, hidden=(8, 5), classes=3, seed=1).eval()
    wide = toys.doubled(network, "act1", "linear1", "linear2")
    inputs = torch.randn(20, 6)
    with torch.no_grad():
        np.testing.assert_allclose(wide(inputs), network(inputs), atol=1e-6)
        shown = wide.act1(wide.linear1(inputs))
    assert shown.shape == (20, 16)
    assert torch.equal(shown[:, ::2], shown[:, 1::2])
    assert network.linear1.out_features == 8


def test_xor_is_synergy_alone():
    synergy, single, left = toys.xor()
    assert synergy.synergy[0, 1].item() == pytest.approx(1, abs=1e-12)
    assert single == pytest.approx(0, abs=1e-12)
    assert left == pytest.approx(0.5)


def test_the_quantiser_of_a_sigmoid_splits_at_a_half():
    assert methods("sigmoid")["entropy"](mlp(4, activation="sigmoid"), "act1").quantiser.threshold == 0.5
    assert methods("relu")["mutual information"](mlp(4), "act1").quantiser.threshold == 0.0


def test_no_quantity_breaks_its_bounds():
    network, labels = mlp(6, hidden=(9, 9)).eval(), torch.arange(60) % 4
    found = plane(network, "act1", "relu", (torch.randn(60, 6), labels))
    assert _violation(found, labels) <= 1e-9
    assert _violation(found, torch.zeros(60, dtype=torch.int64)) > 0  # against a bound of 0 bits


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


@pytest.mark.slow
def test_the_protocol_runs_at_quick_scale(data_folder, capsys):
    from benchmarks.papers import amjad

    amjad.run(Scale.QUICK)
    page = capsys.readouterr().out.split("wrote ")[-1].strip()
    with open(page) as file:
        text = file.read()
    assert all(f"C2.{k}" in text for k in range(1, 8))
    assert text.count("![") == 3
