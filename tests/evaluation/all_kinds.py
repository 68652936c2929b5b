"""A comparison of attributions of every kind: given, per sample, statistical, tied, not applicable."""

from __future__ import annotations

import torch
from captum.attr import LayerConductance, LayerGradCam, LayerLRP

from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity


def compared(setting, *, ranking=True, **options):
    """Return the comparison of every kind of method on ``setting``: model, data and ranking data."""
    model, data, rank = setting
    methods = {
        "random 1": torch.randn(8, generator=torch.Generator().manual_seed(1)),
        "conductance": LayerConductance(model, model[1]),
        "LRP": LayerLRP(model, model[1]),
        "mean activity": LayerMeanActivity(model, "1"),
        "backwards": -LayerMeanActivity(model, "1").attribute(rank[0], target=rank[1]),
        "tied": torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]),
        "other layer": LayerGradCam(model, model[0]),
    }
    evaluator = CumulativeAblationEvaluator(model, "1", **{"steps": 4, "n_random": 6, **options})
    return evaluator.compare(methods, data, ranking_data=rank if ranking else None)
