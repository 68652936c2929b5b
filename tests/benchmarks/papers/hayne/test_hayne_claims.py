"""Claims follow from invented measurements."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.papers.hayne.claims import over_networks
from benchmarks.papers.hayne.estimates import network_estimates
from benchmarks.papers.hayne.protocol import METHODS, LayerStudy, NetworkStudy
from benchmarks.papers.hayne.tables import family_table


def invented(network, product, seed=0):
    """A network's study with one layer of 100 units: selectivity unrelated to the deficits, the probe weakly so."""
    random = np.random.default_rng(seed)
    s, a, noise = random.normal(size=(3, 80))
    margin = random.normal(size=100)
    units = pd.DataFrame({"unit": range(100), "margin": margin, "accuracy": margin, "preferred": margin})
    units = units.assign(first=margin, second=margin, selectivity=random.normal(size=100))
    units["probe"] = 0.3 * margin + random.normal(size=100)
    units["mean activity"] = units["selectivity x activity"] = random.normal(size=100)
    groups = pd.DataFrame({"selectivity": s, "mean_activity": a, "overall_activity": a, "n_units": 5})
    groups["excess"] = groups["deficit"] = product * s * a + 0.01 * noise
    groups = groups.assign(network=network, layer="one", **{"class": np.arange(80) % 4})
    area = random.normal(size=50)
    deletion = {name: area + (0.2 if name == "selectivity x activity" else 0) for name in METHODS}
    layer = LayerStudy(
        network, "f", "one", 100, 0, 10, 50, 0.9, units, groups, pd.DataFrame(), deletion, deletion, None
    )
    return NetworkStudy(network, "f", 0.9, (layer,), 1.0, 2.0)


def test_claims_follow_from_what_was_measured():
    found = [network_estimates(invented(f"n{k}", 0.05, seed=k)) for k in range(4)]
    verdicts = {claim.id: claim.verdict for claim in over_networks(found)}
    assert verdicts["C0.1"] == "holds"
    assert verdicts["C0.2b"] == "holds"
    assert verdicts["C0.4"] == "holds"
    assert verdicts["C0.2c"] == "reported"
    assert all(one.layers[0].interaction_helps for one in found)
    mean, interval = found[0].curves
    assert mean == pytest.approx(0.2)
    np.testing.assert_allclose(interval, [0.2, 0.2], atol=1e-9)


def test_families_count_once_whatever_their_seeds():
    found = [network_estimates(invented(f"n{k}", 0.05 * (1 + k), seed=k)) for k in range(3)]
    for one, family in zip(found, "ffg", strict=True):
        object.__setattr__(one.study, "family", family)
    row = family_table(found).set_index("figure").loc["C0.2b product"]
    first, second, third = (one.product[0] for one in found)
    assert row["f"] == f"{(first + second) / 2:.4f}"
    assert row["g"] == f"{third:.4f}"
    assert row["mean of 2"].startswith(f"{((first + second) / 2 + third) / 2:.4f} [")


def test_an_interaction_of_the_other_sign_fails_the_expected_one():
    found = [network_estimates(invented(f"n{k}", -0.05, seed=k)) for k in range(3)]
    claim = next(claim for claim in over_networks(found) if claim.id == "C0.2b")
    assert claim.verdict == "fails"
    with pytest.raises(ValueError, match="claims over networks need at least 2 networks; got 1"):
        over_networks(found[:1])
