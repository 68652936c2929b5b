"""The ten cases, and the plain hook loop. Weights are random and images noise: time does not depend on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.side_by_side import CPU
from captum_ablate.inputs.model import find_layer


@dataclass(frozen=True)
class Case:
    """A layer of a torchvision network, images of ``side`` px, and the axis of the layer's units."""

    model: str
    layer: str
    side: int = 160
    unit_dim: int = 1

    def __str__(self) -> str:
        return f"{self.model} {self.layer}"

    def build(
        self, images: int, batch: int, device: torch.device = CPU
    ) -> tuple[nn.Module, nn.Module, int, list[tuple[Tensor, Tensor]]]:
        """Return the model, the layer, its number of units, and the batches; labels are the model's own answers."""
        torch.manual_seed(0)
        model = getattr(torchvision.models, self.model)().eval().to(device)
        layer = find_layer(model, self.layer)
        x = pictures(images, self.side).to(device)
        shapes: list[torch.Size] = []
        handle = layer.register_forward_hook(lambda _module, _args, output: shapes.append(output.shape))
        with torch.no_grad():
            for head in [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]:
                if not bool(head.weight.any()):  # a vision transformer is initialised with zeros there
                    nn.init.normal_(head.weight, std=0.05)
            settle(model, x[:16])
            outputs = torch.cat([model(part) for part in x.split(batch)])
        handle.remove()
        y = (outputs - outputs.mean(dim=0)).argmax(dim=1)  # centred: random weights would give all images one class
        return model, layer, shapes[0][self.unit_dim], list(zip(x.split(batch), y.split(batch), strict=True))


def pictures(images: int, side: int) -> Tensor:
    """Return ``[images, 3, side, side]``: coarse and fine noise, so that the images differ as photographs do."""
    coarse = nn.functional.interpolate(torch.randn(images, 3, 4, 4), size=side, mode="bilinear")
    return coarse + 0.3 * torch.randn(images, 3, side, side)


def settle(model: nn.Module, x: Tensor) -> None:
    """Set the statistics of batch norms from ``x``, so that random features differ between images."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    model(x)
    model.eval()


CASES = (
    Case("resnet18", "conv1"),
    Case("resnet18", "layer2.0"),
    Case("resnet18", "layer3.1"),
    Case("resnet18", "layer4.0"),
    Case("resnet18", "layer4.1"),
    Case("densenet121", "features.denseblock3"),
    Case("mobilenet_v2", "features.14"),
    Case("vgg11", "features.18"),
    Case("alexnet", "classifier.1", side=224),
    Case("vit_b_16", "encoder.layers.encoder_layer_9.mlp", side=224, unit_dim=-1),
)


def hook_loop(
    model: nn.Module, layer: nn.Module, order: Tensor, counts: Tensor, batches: list[tuple[Tensor, Tensor]], dim: int
) -> tuple[Tensor, Tensor]:
    """Ablate as everybody writes it: one full forward pass with a hook per step and batch.

    Return the accuracy and the mean of the label's logit, each ``[steps]``.
    """
    device = batches[0][0].device
    right, logits, order = torch.zeros(len(counts)).to(device), torch.zeros(len(counts)).to(device), order.to(device)
    with torch.no_grad():
        for k, count in enumerate(counts):
            units = order[:count]

            def ablate(_module: nn.Module, _args: object, output: Tensor, units: Tensor = units) -> Tensor:
                output = output.clone()
                output.index_fill_(dim, units, 0.0)
                return output

            handle = layer.register_forward_hook(ablate)
            for x, y in batches:
                outputs = model(x)
                right[k] += (outputs.argmax(1) == y).sum()
                logits[k] += outputs.gather(1, y[:, None]).sum()
            handle.remove()
    images = sum(len(y) for _, y in batches)
    return right.cpu() / images, logits.cpu() / images


def both_ways(
    model: nn.Module, layer: nn.Module, order: Tensor, counts: Tensor, batches: list[tuple[Tensor, Tensor]], dim: int
) -> tuple[Tensor, Tensor]:
    """Run the hook loop on an order, then on its reverse; return what it says of the order."""
    found = hook_loop(model, layer, order, counts, batches, dim)
    hook_loop(model, layer, order.flip(0), counts, batches, dim)
    return found


def check_equal(plain: tuple[Tensor, Tensor], accuracy: Tensor, logit: Tensor) -> None:
    """Raise if accuracies differ, or mean logits by more than 1e-5 of the largest."""
    torch.testing.assert_close(plain[0].double(), accuracy, rtol=0, atol=1e-6)
    torch.testing.assert_close(plain[1].double(), logit, rtol=0, atol=1e-5 * float(plain[1].abs().max()))
