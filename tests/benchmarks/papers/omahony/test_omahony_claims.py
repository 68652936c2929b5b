"""Claims and lessons follow from invented figures."""

from __future__ import annotations

import pandas as pd

from benchmarks.papers.common.claims import judged_over
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.omahony.levels import maximum_claims, maximum_lesson, midrange_claims
from benchmarks.papers.omahony.page import training_section
from benchmarks.papers.omahony.retraining import retraining_lesson


def levels(seeds: int = 5) -> pd.DataFrame:
    rows = [
        {
            "bias": bias,
            "seed": seed,
            "held_out": 0.5 if seed == 1 else 0.95,
            "conflict": 0.1,
            "conflict_mid": 0.3 + 0.01 * seed,
            "conflict_top": 0.02,
            "purity_top": 0.99 - 0.5 * bias,
            "bits_mid": 0.2 * bias + 0.01 * seed,
            "bits_top": 0.0,
        }
        for bias in (0.0, 0.8, 0.9, 0.95, 1.0)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def test_no_seed_is_left_out_of_the_comparison_with_networks_without_bias():
    joined, pure, apart, top = maximum_claims(levels())
    assert pure.figure.startswith("0.540")
    assert pure.verdict == "fails"
    assert apart.figure.startswith("0.180 [0.180, 0.180]")  # the seeds cancel, all five of them
    assert apart.verdict == "holds"
    assert joined.verdict == "fails"
    assert top.verdict == "reported"


def test_every_bias_and_both_checks_count_for_the_midrange():
    joined, *parts = midrange_claims(levels())
    assert [part.id for part in parts] == [
        f"C4.2 {check}, b = {bias}" for bias in (0.8, 0.9, 0.95) for check in ("ratio", "top")
    ]
    assert joined.verdict == "holds"
    assert parts[0].figure.startswith("3.20")


def test_claims_after_fewer_epochs_stand_beside_those_of_the_protocol():
    def claims(value):
        return [judged_over("C", "is above 1", "the mean", [value, value + 0.1, value - 0.1], threshold=1, digits=1)]

    table = training_section(claims(0.0), claims(5.0), Scale.NORMAL).tables["training"]
    assert table.iloc[0].tolist() == ["C", "0.0 [-0.2, 0.2]", "fails", "5.0 [4.8, 5.2]", "holds"]
    assert [*table.columns][1::2] == ["after 20 epochs", "after 40 epochs"]


def test_what_failed_is_said_with_the_figures_of_the_run():
    assert "1.00 of its class" not in maximum_lesson(levels())
    assert "a share of 0.99 of its class there, that of a network of bias 0.9 0.54" in maximum_lesson(levels())
    assert "2.0% of it are conflict images, of all 10.0%" in maximum_lesson(levels())
    names = ("ERM", "all held-out", "mid-range", "mid-range minority", "group-balanced (oracle)", "errors")
    rows = [("dots", seed, name, 0.1 * k, 0.5 + 0.05 * k) for seed in range(2) for k, name in enumerate(names)]
    told = retraining_lesson(pd.DataFrame(rows, columns=["data", "seed", "set", "minority", "worst"]))
    assert told.startswith("- C4.3, dots: 10% of all held-out samples are a minority, 20% of the mid-range")
    assert "the worst group 60.0 % (ERM 50.0 %)" in told
    assert "65.0 % (chosen by group labels; oracle 70.0 %)" in told
    assert "50% are a minority, give 75.0 %" in told
    assert told.count("\n") == 0
