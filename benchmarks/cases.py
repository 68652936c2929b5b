"""The ten cases, and the plain hook loop. Weights are random, images are noise: time does not depend on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from captum_ablate.layers import find_layer


@dataclass(frozen=True)
class Case:
    """A layer of a torchvision network, images of ``side`` px, and the axis of the layer's units."""

    model: str
    layer: str
    side: int = 160
    unit_dim: int = 1

    def __str__(self) -> str:
        return f"{self.model} {self.layer}"

    def build(self, images: int, batch: int) -> tuple[nn.Module, nn.Module, int, list[tuple[Tensor, Tensor]]]:
        """Return the model, the layer, its number of units, and the batches; labels are what the model says."""
        torch.manual_seed(0)
        model = getattr(torchvision.models, self.model)().eval()
        layer = find_layer(model, self.layer)
        x = torch.randn(images, 3, self.side, self.side)
        shapes: list[torch.Size] = []
        handle = layer.register_forward_hook(lambda _module, _args, output: shapes.append(output.shape))
        with torch.no_grad():
            outputs = torch.cat([model(part) for part in x.split(batch)])
            [*_, head] = (module for module in model.modules() if isinstance(module, nn.Linear))
            head.bias -= outputs.mean(dim=0)  # else random weights say the same class for all images
        handle.remove()
        y = (outputs - outputs.mean(dim=0)).argmax(dim=1)  # accuracy starts near 1 and falls
        y[0] = (y[0] + 1) % 1000  # two classes at least
        return model, layer, shapes[0][self.unit_dim], list(zip(x.split(batch), y.split(batch), strict=True))


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
) -> Tensor:
    """What everybody writes: one full forward pass with a hook per step and batch; accuracy per step."""
    right = torch.zeros(len(counts))
    with torch.no_grad():
        for k, count in enumerate(counts):
            units = order[:count]

            def ablate(_module: nn.Module, _args: object, output: Tensor, units: Tensor = units) -> Tensor:
                output = output.clone()
                output.index_fill_(dim, units, 0.0)
                return output

            handle = layer.register_forward_hook(ablate)
            for x, y in batches:
                right[k] += (model(x).argmax(1) == y).sum()
            handle.remove()
    return right / sum(len(y) for _, y in batches)
