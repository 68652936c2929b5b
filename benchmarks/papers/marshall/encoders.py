"""Encoders with dropout, wide enough for the fit of a spectrum: autoencoders and classifiers of CIFAR-10 images.

``python -m benchmarks.papers.marshall.encoders autoencoder 0.2 1`` trains one (dropout 0.2, seed 1) beforehand.
"""

from __future__ import annotations

import sys
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from tqdm.auto import trange

from benchmarks.papers.common.data import first, images
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import Trained, accuracy, trained

LAYERS = ("encoder.relu1", "encoder.relu2", "encoder.relu3", "encoder.relu4", "encoder.relu5")
"""From the input on: 128, 128, 256 and 256 channels, then 256 dense units."""

DROPOUTS = (0.0, 0.2, 0.5)
IMAGES, EPOCHS = 5_000, 5
FLOORS = {"autoencoder": 0.5, "classifier": 0.35}
"""Least R2 of the reconstruction, and least accuracy (chance: 0.1), on held-out images."""

BATCH = 50  # as in the authors' supplement


class Encoder(nn.Sequential):
    """Four convolutions and a dense layer to a code of 128; dropout after every ReLU, as in the authors' supplement."""

    def __init__(self, dropout: float, width: int) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(3, width, kernel_size=3, stride=2, padding=1),
                relu1=nn.ReLU(),
                dropout1=nn.Dropout(dropout),
                conv2=nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1),
                relu2=nn.ReLU(),
                dropout2=nn.Dropout(dropout),
                conv3=nn.Conv2d(width, 2 * width, kernel_size=3, stride=2, padding=1),
                relu3=nn.ReLU(),
                dropout3=nn.Dropout(dropout),
                conv4=nn.Conv2d(2 * width, 2 * width, kernel_size=3, padding=1),
                relu4=nn.ReLU(),
                dropout4=nn.Dropout(dropout),
                flatten=nn.Flatten(),
                linear5=nn.Linear(2 * width * 4 * 4, 2 * width),
                relu5=nn.ReLU(),
                dropout5=nn.Dropout(dropout),
                code=nn.Linear(2 * width, 128),
            )
        )


def network(kind: str, dropout: float, seed: int, width: int = 128) -> nn.Sequential:
    """Return an untrained ``autoencoder`` or ``classifier`` of 32 x 32 images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(dropout, width)
        head = _decoder(width) if kind == "autoencoder" else nn.Sequential(nn.ReLU(), nn.Linear(128, 10))
        return nn.Sequential(OrderedDict(encoder=encoder, head=head))


def encoder(kind: str, dropout: float, seed: int, scale: Scale = Scale.NORMAL) -> Trained:
    """Return an ``autoencoder`` (its ``accuracy`` is R2) or ``classifier`` trained on CIFAR-10.

    At quick scale: 300 images, one epoch, no floor.
    """
    if kind not in FLOORS:
        raise ValueError(f"kind must be one of {', '.join(FLOORS)}; got {kind!r}")
    split = images("cifar10")
    train, epochs = first(split.train, scale.pick(300, IMAGES, 20_000)), scale.pick(1, EPOCHS, 20)
    held_out = first(split.evaluate, scale.pick(200, 2_000))

    def evaluate(fitted: nn.Module) -> float:
        return explained(fitted, held_out.images) if kind == "autoencoder" else accuracy(fitted, *held_out)

    return trained(
        f"cifar10-wide-{kind}-dropout{dropout:g}-{epochs}epochs-{len(train.labels)}images-seed{seed}",
        lambda: network(kind, dropout, seed),
        lambda fitted: fit(fitted, *train, rebuild=kind == "autoencoder", epochs=epochs, seed=seed),
        evaluate=evaluate,
        floor=-1.0 if scale is Scale.QUICK else FLOORS[kind],
    )


def fit(network: nn.Module, images: Tensor, labels: Tensor, *, rebuild: bool, epochs: int, seed: int) -> None:
    """Train with Adam (1e-3, as in the supplement) on squared error (``rebuild``) or on cross-entropy."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    network.train().to(memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the masks of dropout
        bar = trange(epochs, desc="encoder", unit="epoch")
        for _ in bar:
            total = 0.0
            for index in torch.randperm(len(images), generator=generator).split(BATCH):
                batch = images[index].contiguous(memory_format=torch.channels_last)
                output = network(batch)
                loss = mse_loss(output, batch) if rebuild else cross_entropy(output, labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += float(loss.detach()) * len(index)
            bar.set_postfix(loss=f"{total / len(images):.4f}")
    network.eval().to(memory_format=torch.contiguous_format).zero_grad()


@torch.no_grad()
def explained(network: nn.Module, images: Tensor) -> float:
    """Return R2 of the reconstruction: 1 - squared error / squared deviation from the mean image."""
    error = sum(float((network(part) - part).square().sum()) for part in images.split(500))
    return 1 - error / float((images - images.mean(0)).square().sum())


def _decoder(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(128, width * 4 * 4),
        nn.ReLU(),
        nn.Unflatten(1, (width, 4, 4)),
        nn.ConvTranspose2d(width, width, kernel_size=4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(width, width // 2, kernel_size=4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(width // 2, 3, kernel_size=4, stride=2, padding=1),
    )


if __name__ == "__main__":
    result = encoder(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
    print(f"{' '.join(sys.argv[1:])}: {result.accuracy:.3f} in {result.seconds:.0f} s")
