"""Training with a cache of weights and a floor of accuracy: a protocol that runs again trains nothing."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from tqdm.auto import trange

CACHE = Path.home() / ".cache" / "captum_ablate" / "papers"


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode, its held-out ``accuracy``, and the ``seconds`` of its training."""

    network: nn.Module
    accuracy: float
    seconds: float


def trained(
    key: str,
    make: Callable[[], nn.Module],
    fit: Callable[[nn.Module], None],
    *,
    evaluate: Callable[[nn.Module], float],
    floor: float,
    cache: Path | None = None,
) -> Trained:
    """Return the network of ``key`` from the cache, or build, fit and evaluate it and put it there.

    The key must name everything that the weights depend on: network, data, recipe and seed. One process trains a key;
    others wait for it.

    Raises:
        ValueError: if the accuracy is below ``floor``, for new and for cached weights.
    """
    folder = CACHE if cache is None else cache
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{key}.pt"
    network = make()
    with _alone(folder / f"{key}.lock"):
        if file.is_file():
            kept = torch.load(file, weights_only=True)
            network.load_state_dict(kept["weights"])
            accuracy, seconds = float(kept["accuracy"]), float(kept["seconds"])
            network.eval()
        else:
            start = time.perf_counter()
            fit(network)
            seconds = time.perf_counter() - start
            network.eval().zero_grad()
            accuracy = evaluate(network)
            partial = file.with_suffix(f".{os.getpid()}.partial")
            torch.save({"weights": network.state_dict(), "accuracy": accuracy, "seconds": seconds}, partial)
            os.replace(partial, file)
    if accuracy < floor:
        raise ValueError(
            f"{key} must reach an accuracy of {floor:.1%} on held-out data to be evidence of anything; it reached "
            f"{accuracy:.1%}; remove {file.name} from {folder} and train it longer"
        )
    return Trained(network, accuracy, seconds)


def fit_classifier(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    seed: int = 0,
    batch: int = 128,
    max_lr: float = 3e-3,
    weight_decay: float = 0.0,
    flip: bool = False,
    crop: int = 0,
    bfloat16: bool = False,
    show_progress: bool = True,
) -> None:
    """Fit ``network`` with AdamW, cross-entropy and a one-cycle schedule; the same seed gives the same weights.

    ``flip`` mirrors each image with probability 1/2. ``crop`` shifts each image by up to that many pixels and pads with
    zeros. ``bfloat16`` runs the forward pass in mixed precision: half the time on processors that support it.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1; got {epochs}")
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=weight_decay)
    steps = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=max_lr, total_steps=steps)
    convolutional = any(isinstance(module, nn.Conv2d) for module in network.modules())
    layout = torch.channels_last if convolutional else torch.contiguous_format  # a third faster on a CPU
    network.train().to(memory_format=layout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for dropout
        bar = trange(epochs, desc="training", unit="epoch", disable=not show_progress)
        for _ in bar:
            total = 0.0
            for index in torch.split(torch.randperm(len(images), generator=generator), batch):
                inputs = _augmented(images[index], flip, crop, generator)
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    loss = cross_entropy(network(inputs.contiguous(memory_format=layout)), labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += float(loss.detach()) * len(index)
            bar.set_postfix(loss=f"{total / len(images):.3f}")
    network.eval().to(memory_format=torch.contiguous_format).zero_grad()


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor, *, batch: int = 500) -> float:
    """Return the fraction of ``images`` whose predicted class is the label."""
    right = [network(x).argmax(dim=1) == y for x, y in zip(images.split(batch), labels.split(batch), strict=True)]
    return float(torch.cat(right).float().mean())


def _augmented(images: Tensor, flip: bool, crop: int, generator: torch.Generator) -> Tensor:
    if flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if not crop:
        return images
    height, width = images.shape[-2:]
    padded = pad(images, (crop,) * 4)
    top, left = torch.randint(0, 2 * crop + 1, (2, len(images)), generator=generator)
    rows = top[:, None] + torch.arange(height)  # [n, height]
    columns = left[:, None] + torch.arange(width)  # [n, width]
    sample = torch.arange(len(images))[:, None, None]
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds ``lock``; it is released when this process ends, however it ends."""
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
