"""The machinery of the replications: verdicts, pages, the cache of weights, training, the command line."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import nn

from benchmarks.papers import __main__ as command
from benchmarks.papers import claims, networks
from benchmarks.papers.page import Seconds, Section, markdown, write_page
from benchmarks.papers.scale import Scale
from benchmarks.papers.training import accuracy, fit_classifier, trained
from captum_ablate.statistics.intervals import Interval

numbers = st.floats(-10, 10)


@given(numbers, numbers, numbers)
def test_a_verdict_mirrors_when_everything_is_negated(a: float, b: float, threshold: float) -> None:
    interval, mirrored = Interval(min(a, b), max(a, b)), Interval(-max(a, b), -min(a, b))
    assert claims.verdict(interval, threshold) == claims.verdict(mirrored, -threshold, "below")
    opposite = {"holds": "fails", "fails": "holds", "undecided": "undecided"}
    assert claims.verdict(interval, threshold, "below") == opposite[claims.verdict(interval, threshold)]


def test_a_verdict_needs_the_whole_interval_beyond_the_threshold() -> None:
    assert claims.verdict(Interval(0.1, 0.3), 0.0) == "holds"
    assert claims.verdict(Interval(-0.3, -0.1), 0.0) == "fails"
    assert claims.verdict(Interval(-0.1, 0.3), 0.0) == "undecided"
    assert claims.verdict(Interval(0.0, 0.3), 0.0) == "undecided"
    assert claims.verdict(Interval(math.nan, math.nan), 0.0) == "undecided"
    with pytest.raises(ValueError, match='"above" or "below"; got \'over\''):
        claims.verdict(Interval(0, 1), 0.0, "over")  # type: ignore[arg-type]


def test_seeds_give_students_interval() -> None:
    claim = claims.judged_over("C1", "rises", "mean > 0", [1.0, 2.0, 3.0], threshold=0.0, unit="bits")
    half = 4.302652729911275 / math.sqrt(3)  # t quantile for two degrees of freedom; sd of the values is 1
    assert claim.interval == pytest.approx((2 - half, 2 + half))
    assert claim.verdict == "undecided"
    assert claim.figure == "2.000 [-0.484, 4.484] bits"
    with pytest.raises(FrozenInstanceError):
        claim.verdict = "holds"  # type: ignore[misc]
    assert claims.judged_over("C1", "", "", [1.0], threshold=0.0).verdict == "undecided"  # one seed has no interval


def test_joined_claims_hold_only_together() -> None:
    good = claims.judged_over("a", "", "", [1.0, 1.1, 0.9], threshold=0.0)
    open_ = claims.judged_over("b", "", "", [1.0, -1.1, 0.9], threshold=0.0)
    bad = claims.judged_over("c", "", "", [1.0, 1.1, 0.9], threshold=2.0)
    assert claims.all_of("d", "", "", [good, good]).verdict == "holds"
    assert claims.all_of("d", "", "", [good, open_]).verdict == "undecided"
    joined = claims.all_of("d", "", "", [good, open_, bad])
    assert (joined.verdict, joined.figure) == ("fails", "of 3: 1 holds, 1 fails, 1 undecided")
    with pytest.raises(ValueError, match="at least one part"):
        claims.all_of("d", "", "", [])


def test_a_page_has_its_command_claims_tables_and_figures(tmp_path) -> None:
    claim = claims.reported("C9", "a | b", "look", figure="0.5", interval=Interval(0.4, 0.6), note="only a look")
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    frame = pd.DataFrame({"network": ["a"], "gap": [0.12345]})
    section = Section("Curves", "Before.\n\n{gaps}\n\nAfter.", {"gaps": frame}, {"curve": figure}, {"curve": "A line."})
    page = write_page(
        "paper",
        "A paper",
        command="python -m benchmarks.papers paper",
        seconds=Seconds(90, 300),
        sections=[section],
        claims=[claim],
        scale=Scale.NORMAL,
        folder=tmp_path,
    )
    text = page.read_text()
    assert (
        "`python -m benchmarks.papers paper` (90 s on one core without training, which took 5 min by the clock)" in text
    )
    assert "| C9: a \\| b | look | 0.5 | **reported** |" in text
    assert "- C9: only a look" in text
    assert text.index("Before.") < text.index("| a | 0.123 |") < text.index("After.") < text.index("paper/curve.png")
    assert (tmp_path / "paper" / "curve.png").stat().st_size > 0
    assert pd.read_csv(tmp_path / "paper" / "gaps.csv")["gap"][0] == pytest.approx(0.12345)
    row = pd.read_csv(tmp_path / "paper.csv").iloc[0]
    assert (row["id"], row["low"], row["high"], row["verdict"]) == ("C9", 0.4, 0.6, "reported")


def test_a_quick_page_goes_elsewhere(capsys) -> None:
    page = write_page("paper", "A", command="c", seconds=Seconds(1), sections=[], claims=[], scale=Scale.QUICK)
    assert "docs" not in page.parts
    assert str(page) in capsys.readouterr().out


def test_tables_leave_nan_empty() -> None:
    assert markdown(pd.DataFrame({"a": [np.nan], "b": [2]})).splitlines()[-1] == "|  | 2 |"


def test_weights_are_trained_once_and_kept(tmp_path) -> None:
    fits: list[nn.Module] = []

    def fit(network: nn.Module) -> None:
        fits.append(network)
        with torch.no_grad():
            network.weight.fill_(7.0)

    def run(floor: float):
        return trained("key", lambda: nn.Linear(2, 2), fit, evaluate=lambda _: 0.8, floor=floor, cache=tmp_path)

    first, second = run(0.5), run(0.5)
    assert len(fits) == 1
    assert not second.network.training
    assert torch.equal(first.network.weight, second.network.weight)
    assert (second.accuracy, second.seconds) == (0.8, first.seconds)
    with pytest.raises(ValueError, match=r"accuracy of 90.0% .* it reached 80.0%"):
        run(0.9)


def blobs(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (n,), generator=generator)
    images = torch.randn(n, 1, 8, 8, generator=generator) * 0.5
    images[labels == 1, :, :4] += 1.0
    return images, labels


def test_fitting_learns_and_repeats_and_leaves_the_random_state() -> None:
    images, labels = blobs(300)
    state = torch.random.get_rng_state()
    weights = []
    for _ in range(2):
        network = networks.mlp(64, hidden=(8,), classes=2, seed=1)
        fit_classifier(
            network, images, labels, epochs=6, seed=3, batch=32, flip=True, crop=1, max_lr=1e-2, show_progress=False
        )
        weights.append(network.classifier.weight.detach().clone())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(*weights)
    assert not network.training
    assert accuracy(network, images, labels) > 0.95
    with pytest.raises(ValueError, match="epochs must be at least 1; got 0"):
        fit_classifier(network, images, labels, epochs=0)


def test_crops_are_shifted_copies_of_the_image() -> None:
    from benchmarks.papers.training import _augmented

    image = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4).expand(50, 2, 4, 4)
    shifted = _augmented(image, False, 1, torch.Generator().manual_seed(0))
    padded = nn.functional.pad(image[:1], (1, 1, 1, 1))
    possible = [padded[0, :, r : r + 4, c : c + 4] for r in range(3) for c in range(3)]
    seen = {next(k for k, one in enumerate(possible) if torch.equal(one, shot)) for shot in shifted}
    assert seen == set(range(9))


@pytest.mark.parametrize("make", [networks.small_vgg, networks.small_resnet])
def test_convolutional_networks_never_share_an_activation(make) -> None:
    network = make(width=4).eval()
    calls: dict[nn.Module, int] = {}
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            assert not module.inplace
            module.register_forward_hook(lambda m, _i, _o: calls.update({m: calls.get(m, 0) + 1}))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert set(calls.values()) == {1}
    assert len(calls) == sum(isinstance(m, nn.ReLU) for m in network.modules())


def test_an_mlp_has_the_activation_that_was_asked_for() -> None:
    network = networks.mlp(12, hidden=(5, 4), activation="tanh")
    assert isinstance(network.act2, nn.Tanh)
    assert network(torch.zeros(3, 3, 2, 2)).shape == (3, 10)
    with pytest.raises(ValueError, match="relu, tanh, sigmoid; got 'gelu'"):
        networks.mlp(12, activation="gelu")


def test_the_command_runs_one_paper_at_the_asked_scale(monkeypatch) -> None:
    ran = []

    class Paper:
        @staticmethod
        def run(scale: Scale) -> None:
            ran.append(scale)

    monkeypatch.setattr(command, "import_module", lambda name: {"benchmarks.papers.hayne": Paper}[name])
    for options in ([], ["--quick"], ["--full"]):
        command.main(["hayne", *options])
    assert ran == [Scale.NORMAL, Scale.QUICK, Scale.FULL]
    with pytest.raises(SystemExit):
        command.main(["hayne", "--quick", "--full"])


def test_scales_pick_their_sizes() -> None:
    assert [scale.pick(1, 2, 3) for scale in Scale] == [1, 2, 3]
    assert [scale.pick(1, 2) for scale in Scale] == [1, 2, 2]
    assert [scale.option for scale in Scale] == ["--quick", "", "--full"]
