"""What stands at each level of a unit: closed forms, a slow oracle, errors."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from math import log, log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_ablate import level_slices


def bits(pairs):
    """I(S; Y) of a list of pairs, from counts in dictionaries."""
    n, joint = len(pairs), Counter(pairs)
    first, second = Counter(y for y, _ in pairs), Counter(s for _, s in pairs)
    return sum(k / n * log2(k * n / (first[y] * second[s])) for (y, s), k in joint.items())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["width", "quantile"]), st.integers(1, 8))
def test_slices_equal_oracle(seed, edges, bins):
    rng = np.random.default_rng(seed)
    values, y, s = rng.normal(size=80).round(1), rng.integers(3, size=80) + 2, rng.integers(2, size=80) * 7
    slices = level_slices(values, y, s, bins=bins, edges=edges)
    cut = slices.edges.tolist()
    assert len(slices.n) <= bins
    assert sorted(torch.cat(slices.members).tolist()) == list(range(80))
    for b, members in enumerate(slices.members):
        inside = [i for i in range(80) if cut[b] <= values[i] and (values[i] < cut[b + 1] or b == len(cut) - 2)]
        assert sorted(members.tolist()) == inside
        assert values[members.numpy()].tolist() == sorted(values[inside].tolist())
        assert int(slices.n[b]) == len(inside)
        if not inside:
            continue
        for k, c in enumerate(slices.classes.tolist()):
            assert float(slices.class_composition[b, k]) == pytest.approx(np.mean([y[i] == c for i in inside]))
        for k, a in enumerate(slices.attributes.tolist()):
            share = np.mean([s[i] == a for i in inside])
            assert float(slices.attribute_composition[b, k]) == pytest.approx(share)
            assert float(slices.lift[b, k]) == pytest.approx(share - np.mean(s == a))
        assert float(slices.association[b]) == pytest.approx(bits([(y[i], s[i]) for i in inside]), abs=1e-12)


def test_closed_forms_of_the_association():
    """One level where attribute and class are the same, one where they are independent."""
    values = [0.0] * 4 + [1.0] * 4
    y, s = [0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 0, 1, 0, 1]
    slices = level_slices(values, y, s, bins=2)
    assert slices.association.tolist() == [1.0, 0.0]
    assert slices.association_bias.tolist() == pytest.approx([1 / (8 * log(2))] * 2)
    assert slices.n.tolist() == [4, 4]


def test_the_bias_is_that_of_independent_labels():
    """Mean plug-in association of independent labels, 2 classes and 3 attributes, 150 samples: (1)(2) / (2 n ln 2)."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        slices = level_slices(np.zeros(150), rng.integers(2, size=150), rng.integers(3, size=150))
        found.append(float(slices.association[0] - slices.association_bias[0]))
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(400)
    assert np.mean(found) + 2 / (2 * 150 * log(2)) > 0.005


def test_features_are_averaged_per_level_and_empty_levels_are_nan():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 0.0]])
    slices = level_slices([0.0, 0.1, 3.0], [0, 1, 1], bins=3, features=features)
    assert slices.embedding[0].tolist() == [2.0, 3.0]
    assert bool(slices.embedding[1].isnan().all())
    assert slices.embedding[2].tolist() == [10.0, 0.0]
    assert slices.n.tolist() == [2, 0, 1]
    assert bool(slices.association.isnan().all())  # no attribute was given
    assert list(slices.to_frame().columns) == ["bin", "low", "high", "n", "class_0", "class_1"]


def test_frame_holds_shares_that_sum_to_one():
    rng = np.random.default_rng(0)
    frame = level_slices(rng.normal(size=200), rng.integers(3, size=200), rng.integers(2, size=200)).to_frame()
    filled = frame[frame["n"] > 0]
    assert np.allclose(filled[["class_0", "class_1", "class_2"]].sum(axis=1), 1)
    assert np.allclose(filled[["attribute_0", "attribute_1"]].sum(axis=1), 1)
    assert np.allclose(filled[["lift_0", "lift_1"]].sum(axis=1), 0)
    assert frame["n"].sum() == 200


def test_plots_show_every_level():
    rng = np.random.default_rng(0)
    slices = level_slices(rng.normal(size=90), rng.integers(2, size=90), rng.integers(2, size=90), bins=4)
    assert len(slices.plot(["cat", "dog"]).axes) == 4
    assert len(level_slices(rng.normal(size=90), rng.integers(2, size=90)).plot().axes) == 2
    images = torch.rand(90, 3, 4, 4)
    figure = slices.plot_images(images, per_level=3)
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == sum(min(3, n) for n in slices.n.tolist())
    first = slices.members[-1]  # the highest level is on top
    pictures = [np.asarray(ax.images[0].get_array()) for ax in shown[: min(3, len(first))]]
    stretched = [(images[i] - images[i].min()) / (images[i].max() - images[i].min()) for i in first.tolist()]
    assert all(any(np.allclose(p, x.permute(1, 2, 0)) for x in stretched) for p in pictures)


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((torch.zeros(3, 2), [0, 1, 0]), {}, r"values must be those of one unit, \[n\].*logits\[:, c\]"),
        (([0.0, 1.0], [0, 1, 0]), {}, "got lengths: values 2, target 3"),
        (([0.0, 1.0], [0, 1]), {"bins": 0}, "bins must be at least 1; got 0"),
        (([0.0, 1.0], [0, 1]), {"edges": "equal"}, 'edges must be "width" or "quantile"'),
        (([0.0, float("inf")], [0, 1]), {}, "NaN or infinite"),
        (([0.0, 1.0], [0, 1], [0.5, 0.5]), {}, "one integer class per sample"),
    ],
)
def test_slices_refuse(arguments, options, text):
    with pytest.raises(ValueError, match=text):
        level_slices(*arguments, **options)


def test_plot_images_refuses_other_images():
    with pytest.raises(ValueError, match="images must be those of the 2 sliced samples; got 3"):
        level_slices([0.0, 1.0], [0, 1]).plot_images(torch.zeros(3, 1, 2, 2))
    with pytest.raises(ValueError, match=r"images must be \[n, channels, height, width\]"):
        level_slices([0.0, 1.0], [0, 1]).plot_images(torch.zeros(2, 2, 2))


def test_a_column_of_logits_is_sliced_without_a_warning_from_torch():
    """Torch says so once in a process, hence the new one."""
    call = "c.level_slices(torch.randn(30, 3, dtype=torch.float64)[:, 0], torch.arange(30) % 3)"
    code = f"import torch, captum_ablate as c; {call}"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert "contiguous" not in done.stderr
    assert done.returncode == 0, done.stderr


def test_the_bias_has_double_precision():
    slices = level_slices(np.arange(21.0), [0, 1, 2] * 7, [0, 1, 1] * 7, bins=1)
    assert slices.association_bias.dtype == torch.float64
    assert float(slices.association_bias[0]) == pytest.approx(2 * 1 / (2 * 21 * log(2)), rel=1e-14)
