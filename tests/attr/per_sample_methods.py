"""Per-sample methods with their arguments, and one call of the method for each sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import (
    InternalInfluence,
    LayerActivation,
    LayerAttribution,
    LayerConductance,
    LayerDeepLift,
    LayerDeepLiftShap,
    LayerFeatureAblation,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    LayerLRP,
)

BASELINES = torch.linspace(-1, 1, 15).reshape(3, 5)


class LayerSquare(LayerAttribution):
    """A user's own method: the squared activation times one plus the label."""

    def attribute(self, inputs, target=None, additional_forward_args=None):
        kept = []
        handle = self.layer.register_forward_hook(lambda _, __, output: kept.append(output.detach().clone()))
        extra = () if additional_forward_args is None else additional_forward_args
        self.forward_func(*(inputs if isinstance(inputs, tuple) else (inputs,)), *extra)
        handle.remove()
        weights = torch.as_tensor(target).reshape(-1, *[1] * (kept[0].ndim - 1)) + 1
        return kept[0] ** 2 * weights


METHODS = {
    LayerActivation: {},
    LayerConductance: {"n_steps": 7},
    InternalInfluence: {"n_steps": 7},
    LayerGradientXActivation: {},
    LayerIntegratedGradients: {"n_steps": 7},
    LayerDeepLift: {},
    LayerDeepLiftShap: {"baselines": BASELINES},
    LayerLRP: {},
    LayerFeatureAblation: {},
    LayerGradCam: {"attr_dim_summation": False},
    LayerSquare: {},
}
each_method = pytest.mark.parametrize("cls", list(METHODS), ids=lambda cls: cls.__name__)


def close(one, other, atol=1e-6):
    torch.testing.assert_close(torch.as_tensor(one).double(), torch.as_tensor(other).double(), rtol=1e-5, atol=atol)


def by_sample(attribution, x, targets=None, unit_dim=1, **kwargs):
    """The sum over positions of each sample's attribution, one call for each sample, ``[n, units]``."""
    rows = []
    for i in range(len(x)):
        own = dict(kwargs) if targets is None else {**kwargs, "target": int(targets[i])}
        values = attribution.attribute(x[i : i + 1].clone(), **own).detach().double()[0]
        unit_dim_of_one = unit_dim - 1 if unit_dim > 0 else unit_dim
        units = values.shape[unit_dim_of_one]
        rows.append([float(values.select(unit_dim_of_one, u).sum()) for u in range(units)])
    return np.array(rows)


def loop_mean(rows):
    return np.array([sum(column) / len(column) for column in rows.T])
