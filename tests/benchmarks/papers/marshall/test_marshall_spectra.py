"""Spectra and dropout: refused spectra are counted apart, and a lesson says whether the verdict depends on the fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.papers.marshall.dropout import changes, dropout_claims, refit_lesson, refits
from benchmarks.papers.marshall.page import smoothness_lesson

RANK = torch.arange(1, 129, dtype=torch.float64)


def spectra(alphas: dict[tuple[float, int, str], float], refused: tuple[tuple[float, int, str], ...] = ()):
    """Return rows as ``spectra`` makes them, for exact power laws; a refused one has 40 live units."""
    rows = []
    for (dropout, seed, layer), alpha in alphas.items():
        dead = (dropout, seed, layer) in refused
        rows.append(
            {
                "network": "autoencoder",
                "dropout": dropout,
                "seed": seed,
                "layer": f"encoder.{layer}",
                "depth": int(layer[-1]),
                "alpha": np.nan if dead else alpha,
                "relative_pr": 0.1 + dropout * 0.1,
                "r2": np.nan if dead else 1.0,
                "verdict": "refused" if dead else "smooth",
                "refusal": "too narrow" if dead else "",
                "eigenvalues": torch.where(RANK > 40, 0.0, RANK**-alpha) if dead else RANK**-alpha,
            }
        )
    return pd.DataFrame(rows)


def example() -> pd.DataFrame:
    change = {"relu1": 0.5, "relu2": -0.1}
    alphas = {
        (dropout, seed, layer): 2.0 + 0.01 * seed + (change[layer] if dropout else 0.0)
        for dropout in (0.0, 0.5)
        for seed in (0, 1, 2)
        for layer in change
    }
    return spectra(alphas, refused=((0.5, 1, "relu2"),))


def test_a_change_is_known_only_where_both_were_fitted() -> None:
    found = changes(example(), "alpha")
    assert list(found.columns) == ["relu1", "relu2"]
    np.testing.assert_allclose(found["relu1"], [0.5, 0.5, 0.5])
    np.testing.assert_allclose(found["relu2"], [-0.1, np.nan, -0.1])


def test_the_claim_names_what_was_not_fitted() -> None:
    exponent, dimension = dropout_claims(example())
    assert exponent.figure.startswith("0.300")  # seeds (0.5 - 0.1) / 2, 0.5 alone, (0.5 - 0.1) / 2
    assert "fitted in both (1 to 2 of 2)" in exponent.check
    assert "1 of 2 layers go this way (not fitted in both, for dead units: relu2 in 1 of 3 seeds)" in exponent.note
    assert "nan" not in exponent.note
    assert "2 layers" in dimension.check
    assert dimension.verdict == "fails"  # the participation ratio of the example rises


def test_a_layer_that_was_never_fitted_is_left_out_of_the_count() -> None:
    frame = example()
    never = frame[~((frame["layer"] == "encoder.relu2") & (frame["dropout"] == 0.5))]
    dead = frame[(frame["layer"] == "encoder.relu2") & (frame["dropout"] == 0.5)].assign(alpha=np.nan)
    exponent, _ = dropout_claims(pd.concat([never, dead]))
    assert exponent.note.startswith("1 of 1 layers go this way (not fitted in both, for dead units: relu2 in 3 of 3")


def test_refits_recover_exact_power_laws_over_either_range() -> None:
    table = refits(example()).set_index(["ranks", "fits that count"])["change of alpha"]
    assert table["10 to 64", "all"] == pytest.approx((0.2 + 0.5 + 0.2) / 3)
    assert table["10 to 32", "all"] == pytest.approx(0.2)  # 40 live units are enough for these ranks
    assert table["10 to 32", "R2 > 0.95"] == pytest.approx(0.2)


def test_a_poor_line_does_not_count_among_the_good() -> None:
    frame = example()
    steps = torch.where(RANK > 20, 1e-6, 1.0).to(torch.float64)
    frame["eigenvalues"] = [
        steps if layer.endswith("relu2") else values
        for layer, values in zip(frame["layer"], frame["eigenvalues"], strict=True)
    ]
    table = refits(frame).set_index(["ranks", "fits that count"])
    assert table.loc[("10 to 64", "R2 > 0.95"), "pairs"] == "3 of 6"
    assert table.loc[("10 to 64", "R2 > 0.95"), "change of alpha"] == pytest.approx(0.5)


def test_the_lesson_says_whether_the_verdict_goes_with_the_fit() -> None:
    frame = example()
    table = refits(frame)
    assert "is the same under every fit" in refit_lesson(table.assign(verdict="fails"), frame)
    lesson = refit_lesson(table.assign(verdict=["fails", "undecided"] * 2), frame)
    assert "goes with the fit" in lesson
    assert "nothing here supports" not in lesson  # alpha rises in the example
    falling = table.assign(**{"change of alpha": -table["change of alpha"]})
    assert "nothing here supports a steeper decay" in refit_lesson(falling, frame)


def test_refused_spectra_are_counted_apart() -> None:
    assert "Every spectrum that could be fitted decays" in smoothness_lesson(example())
    assert "11 of 11 layers of networks; the other 1 of 12 were refused" in smoothness_lesson(example())
