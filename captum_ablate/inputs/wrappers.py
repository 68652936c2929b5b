"""Look through the wrappers ``torch.compile``, ``DataParallel`` and ``torch.export`` around a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def unwrapped(model: Any) -> Any:
    """Return the module inside a compiled model, or inside one wrapped for data parallelism on one device."""
    while True:
        if isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        elif (isinstance(model, nn.DataParallel) and len(model.device_ids) <= 1) or isinstance(
            model, nn.parallel.DistributedDataParallel
        ):
            model = model.module
        else:
            return model


def is_flat_graph(model: Any) -> bool:
    """Tell whether a model is a graph that calls no module of the user's."""
    return isinstance(model, torch.fx.GraphModule) and not any(
        node.op == "call_module" and node.target != "_guards_fn" for node in model.graph.nodes
    )


def plain_name(name: str) -> str:
    """Return the name of a layer without the parts that ``torch.compile`` adds."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
