"""Captum's own test networks, with Captum's weights: its wheel has them only from version 0.9 on.

From ``captum/testing/helpers/basic_models.py``, Copyright (c) 2019, PyTorch team, BSD 3-Clause License (see LICENSE).
Shortened to what the tests call; names, modules, weights and draws of random numbers are Captum's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def weighted(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Return a linear module with this ``weight [out, in]`` and ``bias [out]``, without bias where none is given."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    module.weight = nn.Parameter(weight)
    if bias is not None:
        module.bias = nn.Parameter(bias)
    return module


class MultiRelu(nn.Module):
    """Two ReLU modules in one."""

    def __init__(self) -> None:
        super().__init__()
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()


class BasicModel_MultiLayer(nn.Module):
    """An identity, then 3 -> 4 -> 2 with a ReLU whose first unit is mostly dead; two modules are idle."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.linear0 = weighted(torch.eye(3), torch.zeros(3))
        self.linear1 = weighted(torch.ones(4, 3), torch.tensor([-10.0, 1.0, 1.0, 1.0]))
        self.linear1_alt = weighted(torch.ones(4, 3), torch.tensor([-10.0, 1.0, 1.0, 1.0]))
        self.multi_relu = MultiRelu()
        self.relu = nn.ReLU(inplace=inplace)
        self.linear2 = weighted(torch.ones(2, 4), torch.tensor([-1.0, 1.0]))

    def forward(self, x: Tensor, add_input: Tensor | None = None, multidim_output: bool = False) -> Tensor:
        x = x if add_input is None else x + add_input
        x = self.linear2(self.relu(self.linear1(self.linear0(x))))
        if not multidim_output:
            return x
        x = torch.stack((x, 2 * x), dim=2)
        return torch.stack((x, 4 * x), dim=3)


class BasicModel_MultiLayer_MultiInput(nn.Module):
    """The sum of three inputs, times a number that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.model = BasicModel_MultiLayer()

    def forward(self, x1: Tensor, x2: Tensor, x3: Tensor, scale: int) -> Tensor:
        return self.model(scale * (x1 + x2 + x3))


class BasicModel_MultiLayer_TrueMultiInput(nn.Module):
    """Two networks that read different inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.m1 = BasicModel_MultiLayer()
        self.m234 = BasicModel_MultiLayer_MultiInput()

    def forward(self, x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor | None = None) -> Tensor:
        return self.m1(x1) + self.m234(x2, x3, x1 if x4 is None else x4, scale=1)


class BasicModelWithReusedModules(nn.Module):
    """One ReLU module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1 = nn.Linear(3, 2)
        self.relu = nn.ReLU()
        self.lin2 = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.lin2(self.relu(self.lin1(x))))


class _ConvNet(nn.Module):
    """Two convolutions with pooling, two linear modules and a softmax, in 1, 2 or 3 dimensions."""

    convolution: type[nn.Module]
    pooling: type[nn.Module]

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = self.convolution(1, 2, 3)
        self.relu1 = nn.ReLU()
        self.pool1 = self.pooling(2)
        self.conv2 = self.convolution(2, 4, 3)
        self.relu2 = nn.ReLU()
        self.pool2 = self.pooling(2)
        self.fc1 = nn.Linear(4, 8)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(8, 10)
        self.softmax = nn.Softmax(dim=1)
        self.fc1.weight = nn.Parameter(torch.ones(8, 4))
        self.fc2.weight = nn.Parameter(torch.ones(10, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.fc1(x.view(-1, 4)))
        return self.softmax(self.fc2(x))


class BasicModel_ConvNet(_ConvNet):
    convolution, pooling = nn.Conv2d, nn.MaxPool2d


class BasicModel_ConvNet_MaxPool1d(_ConvNet):
    convolution, pooling = nn.Conv1d, nn.MaxPool1d


class BasicModel_ConvNet_MaxPool3d(_ConvNet):
    convolution, pooling = nn.Conv3d, nn.MaxPool3d


class BasicModel_ConvNet_One_Conv(nn.Module):
    """One convolution whose biases leave most of it dead."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.relu1 = nn.ReLU(inplace=inplace)
        self.conv1.weight = nn.Parameter(torch.ones(2, 1, 3, 3))
        self.conv1.bias = nn.Parameter(torch.tensor([-50.0, -75.0]))
        self.fc1 = weighted(torch.cat([torch.ones(4, 5), -torch.ones(4, 3)], dim=1), torch.zeros(4))
        self.relu2 = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(self.fc1(self.relu1(self.conv1(x)).view(-1, 8)))


class BasicModel_ConvNetWithPaddingDilation(nn.Module):
    """A convolution with padding, stride and dilation, then a linear module on each channel."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 3, padding=3, stride=2, dilation=2)
        self.relu1 = nn.ReLU(inplace=inplace)
        self.fc1 = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.conv1(x)).reshape(len(x), 2, -1)
        return self.fc1(x).reshape(len(x), -1)


class ReLULinearModel(nn.Module):
    """Two inputs, joined in front of the ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.l1 = weighted(torch.tensor([[3.0, 1.0, 0.0]]))
        self.l2 = weighted(torch.tensor([[2.0, 3.0, 0.0]]))
        self.relu = nn.ReLU()
        self.l3 = weighted(torch.tensor([[1.0, 1.0]]))

    def forward(self, x1: Tensor, x2: Tensor, x3: int = 1) -> Tensor:
        return self.l3(self.relu(torch.cat([self.l1(x1), x3 * self.l2(x2)], dim=1)))


class SimpleLRPModel(nn.Module):
    """Constant weights, and dropout as the last module."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.linear = weighted(torch.full((3, 3), 2.0))
        self.relu = nn.ReLU(inplace=inplace)
        self.linear2 = weighted(torch.full((1, 3), 3.0))
        self.dropout = nn.Dropout(p=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.linear2(self.relu(self.linear(x))))


class LinearMaxPoolLinearModel(nn.Module):
    """Max pooling over all units of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1 = weighted(torch.eye(4))
        self.pool1 = nn.MaxPool1d(4)
        self.lin2 = weighted(torch.ones(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.pool1(self.lin1(x.unsqueeze(1)))[:, 0, :])


class BasicLinearModel_Multilayer(nn.Module):
    """Two linear modules with nothing between them."""

    def __init__(self, in_features: int, hidden_nodes: int, out_features: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_features, hidden_nodes, bias=False)
        self.linear2 = nn.Linear(hidden_nodes, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.linear1(x))
