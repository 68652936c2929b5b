"""Torchvision's networks with random weights, and the layers of each that are ablated."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

SIDES = (64, 70, 75, 96, 128, 160, 192, 224, 256)
LAYERS, CLASSES = 4, 10
IMAGES, BATCH = 11, 4
"""The first batch is recorded, in the next one the prefix tape may run, and the last one is smaller."""
IMAGES_OF_LARGE, LARGE = 2, 30_000_000
"""Networks with more parameters than this get fewer images, in one batch."""
OPERATIONS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish)


@dataclass(frozen=True)
class Layer:
    """An inner layer: its name, its type, and the axis of its units."""

    name: str
    type: str
    unit_dim: int


def names() -> list[str]:
    """Return the names of all classification networks of ``torchvision.models``."""
    return torchvision.models.list_models(module=torchvision.models)


def size_of(name: str) -> tuple[int, int]:
    """Return the number of parameters, and the smallest side of an image that the network accepts, found by trial."""
    for side in SIDES:
        try:
            with _without_memory(), torch.no_grad():
                model = _build(name, side).eval()
                model(torch.empty(IMAGES_OF_LARGE, 3, side, side, device="meta"))
        except Exception:  # any error means that the size does not fit
            continue
        return sum(p.numel() for p in model.parameters()), side
    raise ValueError(f"{name} accepts images of none of these sides: {SIDES}")


def network(name: str, side: int, seed: int = 0, images: int = IMAGES) -> tuple[nn.Module, Tensor]:
    """Return a network with random weights and noise images, such that every unit has an effect on the logits.

    Parameters that torchvision initialises to a constant (a head of zeros, layer scales of 1e-6, biases) are drawn at
    random. Batch norms take their statistics from the images. Otherwise ablations could leave logits unchanged.
    """
    torch.manual_seed(seed)
    model = _build(name, side).eval()
    x = torch.randn(images, 3, side, side)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                scale = parameter[0].numel() ** -0.5 if parameter.ndim == 2 else 0.2
                kept = 0.0 if parameter.ndim == 2 or parameter.flatten()[0] == 0 else 1.0
                parameter.normal_(kept, scale)
        for norm in norms:
            norm.train().momentum = 1.0
        model(x)
        for norm in norms:
            norm.eval()
    return model, x


def choose_layers(model: nn.Module, x: Tensor, first: int = 0) -> list[Layer]:
    """Return layers from a tenth of the depth to the end, operations and whole blocks in turn.

    ``first`` says which comes first: 0 an operation, 1 a block. A candidate runs once in a forward pass, returns
    ``[n, ...]``, and does not return the logits. Its depth is its position among the calls. Units lie along the last
    axis of tokens and of channels-last maps, otherwise along axis 1.
    """
    candidates = _candidates(model, x)
    kinds = [[c for c in candidates if c[1] == kind] for kind in (False, True)]
    end = max(depth for depth, *_ in candidates)
    chosen: dict[str, Layer] = {}
    for k in range(LAYERS):
        aim = end * (0.1 + 0.9 * k / (LAYERS - 1))
        pool = kinds[(k + first) % 2] or candidates
        free = [c for c in pool if c[2].name not in chosen] or [c for c in candidates if c[2].name not in chosen]
        layer = min(free, key=lambda c: abs(c[0] - aim))[2]
        chosen[layer.name] = layer
    return list(chosen.values())


@contextmanager
def _without_memory() -> Iterator[None]:
    """Build modules whose parameters and buffers have a shape but no memory."""

    def bare(_module: nn.Module, _name: str, value: Any) -> Any:
        if isinstance(value, nn.Parameter):
            return nn.Parameter(value.detach().to("meta"))
        return value.to("meta") if isinstance(value, Tensor) else value

    handles = [register_module_parameter_registration_hook(bare), register_module_buffer_registration_hook(bare)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _build(name: str, side: int) -> nn.Module:
    """Return torchvision's network ``name`` for images of ``side`` px, with its own random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GoogLeNet and Inception warn that their initialisation is slow
        more = {"image_size": side} if name.startswith("vit_") else {}
        return torchvision.models.get_model(name, num_classes=CLASSES, **more)


def _candidates(model: nn.Module, x: Tensor) -> list[tuple[int, bool, Layer]]:
    """Return the depth of each candidate, whether it is a block, and the layer, by the end of its call."""
    named = {module: name for name, module in model.named_modules() if name}
    calls, ends = Counter[nn.Module](), {}

    def note(module: nn.Module, _args: object, output: Any) -> None:
        calls[module] += 1
        part = tensor_of(output)
        ends[module] = (len(calls), tuple(part.shape) if isinstance(part, Tensor) else ())

    handles = [module.register_forward_hook(note) for module in named]
    with torch.no_grad():
        logits = model(x).shape
    for handle in handles:
        handle.remove()
    rows = []
    for module, (depth, shape) in ends.items():
        inner = calls[module] == 1 and 2 <= len(shape) <= 4 and shape[0] == len(x) and shape != tuple(logits)
        block = any(True for _ in module.children())
        if inner and (block or isinstance(module, OPERATIONS)):
            rows.append((depth, block, Layer(named[module], type(module).__name__, _unit_dim(shape))))
    return rows


def _unit_dim(shape: Sequence[int]) -> int:
    maps = len(shape) == 4 and shape[2] == shape[3]
    return 1 if len(shape) == 2 or maps else -1


def tensor_of(output: Any) -> Any:
    """Return the first part of a tuple, else the output itself."""
    return output[0] if isinstance(output, tuple) else output
