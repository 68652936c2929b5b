"""Hold a curve against a plain hook and a full forward pass for each step, or against another curve."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from torch import nn

METRICS = ["accuracy", "log_likelihood", "logit", "margin"]
SCORES = torch.tensor([0.3, -1.0, 2.0, 0.9, 0.1, -0.2])  # of the six units of dense[2]


def name_of(value):
    """Return a name for a parameter, the same in every process."""
    if isinstance(value, torch.Tensor):
        return f"tensor{tuple(value.shape)}"
    return getattr(value, "__name__", str(value))


def squared_error(outputs, target):
    """A metric of a user's: higher is better."""
    return -((outputs - nn.functional.one_hot(target, outputs.shape[1])) ** 2).sum(1)


def half(activation, target):
    """A reference of a user's, which looks at both."""
    return activation / 2 + target.reshape(-1, *[1] * (activation.ndim - 1))


def close(one, other, atol=1e-5):
    torch.testing.assert_close(torch.as_tensor(one).double(), torch.as_tensor(other).double(), rtol=1e-5, atol=atol)


def same(one, other, exact=True):
    """Hold two curves against each other: order, values, areas and what is said of random orders."""
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-5, "atol": 1e-6}
    assert torch.equal(one.order, other.order)
    assert torch.equal(one.n_ablated, other.n_ablated)
    torch.testing.assert_close(one.values, other.values, **tolerance)
    torch.testing.assert_close(one.ascending_values, other.ascending_values, **tolerance)
    assert one.z == pytest.approx(other.z, rel=0 if exact else 1e-4, nan_ok=True)


def both_directions(model, layer, x, y, curve, replacement, metric, unit_dim=1):
    """The oracle's values of the curve's own order and of its reverse."""
    order, counts = curve.order.tolist(), curve.n_ablated.tolist()
    arguments = (counts, replacement, metric, unit_dim)
    return tuple(oracles.ablation_values(model, layer, x, y.tolist(), o, *arguments) for o in (order, order[::-1]))


def check(model, layer, x, y, curve, replacement, metric="accuracy", unit_dim=1):
    """Hold values, areas and headline numbers of a curve against the loop."""
    forth, back = both_directions(model, layer, x, y, curve, replacement, metric, unit_dim)
    np.testing.assert_allclose(curve.values, forth, atol=2e-5)
    np.testing.assert_allclose(curve.ascending_values, back, atol=2e-5)
    fractions = [k / len(curve.order) for k in curve.n_ablated.tolist()]
    down, up = oracles.deficit_areas(forth, fractions), oracles.deficit_areas(back, fractions)
    np.testing.assert_allclose(curve.areas, down, atol=2e-5)
    assert curve.deletion == pytest.approx(down.mean(), abs=2e-5)
    assert curve.insertion == pytest.approx(-up.mean(), abs=2e-5)
    assert curve.gap == pytest.approx(down.mean() - up.mean(), abs=4e-5)
    expected = oracles.bounded_interval(down - up, 1) if metric == "accuracy" else oracles.student_interval(down - up)
    assert curve.gap_interval == pytest.approx(expected, abs=1e-4)
    assert curve.score[0] == pytest.approx(forth[0].mean(), abs=2e-5)
    assert torch.equal(curve.target, y)


def unit_mean(model, layer, x, unit_dim=1):
    """One number per unit over samples and positions, in the shape of one sample's output."""
    output = oracles.layer_output(model, layer, x)
    means = oracles.pooled(output, unit_dim).mean(0)
    if unit_dim is None:
        return torch.tensor(means).reshape(output.shape[1:])
    return torch.tensor(means).reshape([-1 if d == unit_dim % output.ndim else 1 for d in range(1, output.ndim)])
