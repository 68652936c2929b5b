"""The demo's data are disjoint and repeatable, its network suits Captum, its training gives all back."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerConductance, LayerDeepLift, LayerGradientXActivation, LayerLRP
from torch import Tensor

from captum_ablate import demo_data
from captum_ablate.inputs.samples import DATA_FOLDER, Labelled, Split

needs_data = pytest.mark.skipif(DATA_FOLDER not in os.environ, reason=f"{DATA_FOLDER} names no folder of real data")


def rows(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def accuracy(network: torch.nn.Module, data: Labelled) -> float:
    with torch.no_grad():
        return float((network(data.images).argmax(dim=1) == data.labels).float().mean())


def check(split: Split, channels: int, size: int, n: tuple[int, int, int]) -> None:
    for part, samples in zip((split.train, split.rank, split.evaluate), n, strict=True):
        assert part.images.shape == (samples, channels, size, size)
        assert part.images.dtype == torch.float32
        assert part.labels.shape == (samples,)
        assert part.labels.dtype == torch.int64
        assert torch.bincount(part.labels).min() > 0.7 * samples / len(split.class_names)
    mean, std = split.train.images.mean((0, 2, 3)), split.train.images.std((0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(channels), atol=1e-3, rtol=0)
    torch.testing.assert_close(std, torch.ones(channels), atol=1e-3, rtol=0)
    train, rank, evaluate = (rows(part.images) for part in (split.train, split.rank, split.evaluate))
    assert not train & rank
    assert not train & evaluate
    assert not rank & evaluate


def test_digits_come_in_three_disjoint_standardised_parts() -> None:
    check(demo_data.load("digits"), 1, 8, (997, 400, 400))


def test_the_same_images_come_every_time() -> None:
    first, second = demo_data.load("digits"), demo_data.load("digits")
    for a, b in ((first.rank, second.rank), (first.evaluate, second.evaluate)):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


def test_the_first_images_of_each_part_are_of_all_classes() -> None:
    split = demo_data.load("digits")
    for part in (split.train, split.rank, split.evaluate):
        assert len(part.labels[:100].unique()) == 10


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="digits, mnist, fashion, cifar10; got 'imagenet'"):
        demo_data.load("imagenet")


def test_a_folder_without_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_FOLDER, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"which has no mnist10k.npz; unset CAPTUM_ABLATE_DATA to download"):
        demo_data.load("mnist")


def test_without_torchvision_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = builtins.__import__

    def without_torchvision(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("torchvision"):
            raise ImportError(name)
        return genuine(name, *args, **kwargs)

    monkeypatch.delenv(DATA_FOLDER, raising=False)
    monkeypatch.setattr(builtins, "__import__", without_torchvision)
    with pytest.raises(ImportError, match=r"pip install captum-ablate\[demo\]"):
        demo_data.load("cifar10")


def test_stored_images_are_read_by_their_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 12)
    order = generator.permutation(120).astype(np.int32)
    images = generator.integers(0, 256, (120, 28, 28), dtype=np.uint8)
    np.savez(
        tmp_path / "fashion10k.npz",
        images=images,
        labels=labels,
        train=order[:60],
        test=order[60:],
        class_names=np.array([f"class {i}" for i in range(10)]),
    )
    monkeypatch.setenv(DATA_FOLDER, str(tmp_path))
    split = demo_data.load("fashion")
    assert split.class_names[3] == "class 3"
    mean, std = images[order[:60]].mean(), images[order[:60]].std()
    stored = {images[i].tobytes(): labels[i] for i in order[:60]}
    pixels = (split.train.images[:, 0].double() * std + mean).round().numpy().astype(np.uint8)
    assert [stored.pop(image.tobytes()) for image in pixels] == split.train.labels.tolist()
    assert not stored
    held_out = torch.cat([split.rank.labels, split.evaluate.labels]).sort().values
    assert torch.equal(held_out, torch.from_numpy(np.sort(labels[order[60:]]).astype(np.int64)))


@needs_data
@pytest.mark.parametrize(
    ("name", "channels", "size", "trained"),
    [("mnist", 1, 28, 8000), ("fashion", 1, 28, 8000), ("cifar10", 3, 32, 20000)],
)
def test_real_data_come_in_three_disjoint_parts(name: str, channels: int, size: int, trained: int) -> None:
    split = demo_data.load(name)
    check(split, channels, size, (trained, 1000, 1000))
    assert len(split.train.labels[:100].unique()) == 10
    assert len(split.class_names) == 10


@needs_data
def test_the_network_learns_real_images_in_two_epochs() -> None:
    split = demo_data.load("mnist")
    network = demo_data.small_network(1, 28, 10)
    demo_data.train(network, split.train.images[:2000], split.train.labels[:2000], epochs=2, show_progress=False)
    assert accuracy(network, split.evaluate) > 0.85


def test_the_network_reaches_97_percent_on_held_out_digits() -> None:
    split = demo_data.load("digits")
    network = demo_data.small_network(1, 8, 10)
    epochs = demo_data.RECIPES["digits"].epochs
    demo_data.train(network, *split.train, epochs=epochs, seed=0, show_progress=False)
    assert accuracy(network, split.rank) >= 0.97
    assert accuracy(network, split.evaluate) >= 0.97


def test_training_repeats_itself_and_gives_the_random_state_back() -> None:
    images, labels = torch.randn(100, 3, 8, 8), torch.arange(100) % 4
    before = torch.get_rng_state()
    trained = []
    for _ in range(2):
        network = demo_data.small_network(3, 8, 4, seed=1)
        seconds = demo_data.train(network, images, labels, epochs=2, seed=5, flip=True, show_progress=False)
        assert seconds > 0
        assert not network.training
        assert all(p.grad is None for p in network.parameters())
        trained.append(network(images))
    assert torch.equal(*trained)
    assert torch.equal(torch.get_rng_state(), before)


def test_flipping_shows_the_network_mirrored_images() -> None:
    class Watch(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)
            self.seen: list[Tensor] = []

        def forward(self, images: Tensor) -> Tensor:
            self.seen.append(images)
            return self.linear(images.flatten(1))

    images = torch.tensor([1.0, 2.0]).expand(200, 1, 1, 2)
    for flip, expected in ((False, {(1.0, 2.0)}), (True, {(1.0, 2.0), (2.0, 1.0)})):
        network = Watch()
        demo_data.train(network, images, torch.arange(200) % 2, epochs=1, flip=flip, show_progress=False)
        assert {tuple(image.flatten().tolist()) for image in torch.cat(network.seen)} == expected


def test_progress_is_shown_only_where_asked(capfd: pytest.CaptureFixture[str]) -> None:
    for show in (False, True):
        network = demo_data.small_network(1, 8, 2)
        demo_data.train(network, torch.randn(8, 1, 8, 8), torch.arange(8) % 2, epochs=1, show_progress=show)
        assert ("training" in capfd.readouterr().err) is show


@pytest.mark.parametrize(
    ("method", "layer"),
    [
        (LayerConductance, "features.relu2"),
        (LayerGradientXActivation, "hidden.relu"),
        (LayerDeepLift, "features.relu2"),
        (LayerDeepLift, "hidden.relu"),
        (LayerLRP, "features.conv2"),
        (LayerLRP, "hidden.linear"),
    ],
)
def test_methods_of_captum_run_on_the_network(method: Any, layer: str) -> None:
    network = demo_data.small_network(1, 28, 10).eval()
    images = torch.randn(4, 1, 28, 28)
    scores = method(network, network.get_submodule(layer)).attribute(images, target=torch.arange(4))
    assert scores.shape[1] == (64 if layer.startswith("features") else 128)
    assert torch.isfinite(scores).all()
    assert scores.abs().sum() > 0
