"""A user's own module for tests of commands: a small trained network, labelled data, and methods."""

from __future__ import annotations

CODE = """
import time
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from captum_ablate import LayerDatasetAttribution

def make():
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return net

def other():
    net = make()
    net[0].weight.data += 0.1
    return net

def load(n=80):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, make()(x).argmax(1)

def loader():
    return DataLoader(TensorDataset(*load()), batch_size=16, shuffle=True)

def many():
    return load()[0], torch.arange(80) % 4

def few():
    return load(60)

class Mine(LayerDatasetAttribution):
    def score(self, moments):
        return moments.means.std(0)

class Broken:
    def __init__(self, model, layer):
        raise RuntimeError("no luck")

def plain(model, layer, data):
    return torch.arange(layer(torch.zeros(1, 6)).shape[1] if hasattr(layer, "weight") else 10).double()

def slow(model, layer, data):
    open("ranking", "w").close()
    time.sleep(60)

def steady(outputs, target):
    return outputs.softmax(1)[torch.arange(len(target)), target]

def dim(activation, target):
    return activation * 0.5

number = 3
"""
