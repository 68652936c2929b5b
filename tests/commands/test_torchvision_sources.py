"""Networks and data sets of torchvision that options name, from files on disk alone."""

from __future__ import annotations

import argparse
import struct

import numpy as np
import pytest
import torch

from captum_ablate.commands import data_source, images, model_source

torchvision = pytest.importorskip("torchvision")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(*arguments):
    parser = argparse.ArgumentParser()
    images.add_arguments(parser)
    return parser.parse_args(arguments)


def write_mnist(folder, n=12):
    """Write the test part of MNIST as torchvision stores it, with random images of the classes 0, 1, 2."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    labels = (np.arange(n) % 3).astype(np.uint8)
    for name in ("train", "t10k"):
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + pixels.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + labels.tobytes())
    return pixels, labels


def test_a_network_with_a_file_of_weights_has_its_number_of_classes(here):
    trained = torchvision.models.resnet18(num_classes=7).eval()
    torch.save(trained.state_dict(), "w.pt")
    found = model_source.read("torchvision:resnet18:w.pt")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(found.module(x), trained(x))
    assert not found.module.training
    assert found.prepare is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet81", "torchvision has no classifier 'resnet81'.*nearest: resnet18"),
        ("torchvision:resnet18:absent.pt", "no file of weights absent.pt"),
        ("torchvision:resnet34:w.pt", r"do not fit torchvision's resnet34 .*missing in the file, layer1\.2\.conv1"),
    ],
)
def test_networks_that_are_not_there_and_weights_that_do_not_fit_are_told(here, name, message):
    torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), "w.pt")
    with pytest.raises((ValueError, OSError), match=message):
        model_source.read(name)


def test_without_a_network_weights_of_torchvision_are_an_error_in_a_line(here, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(OSError, match=r"could not be downloaded \(no route to host\); name a file of weights"):
        model_source.read("torchvision:resnet18")


def test_the_test_part_of_a_data_set_is_read_and_normalised(here):
    pixels, labels = write_mnist(here)
    found = data_source.read("torchvision:MNIST:.", "--data", options("--mean", "0.5", "--std", "0.25"))
    x, y = images.in_memory(found, show_progress=False)
    assert torch.equal(y, torch.from_numpy(labels).long())
    expected = (torch.from_numpy(pixels)[:, None].float() / 255 - 0.5) / 0.25
    assert torch.allclose(x, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:MNIST", "must name a data set and its folder: torchvision:CIFAR10:data"),
        ("torchvision:MNITS:.", "no data set 'MNITS'.*nearest: .*MNIST"),
        (
            "torchvision:CIFAR10:absent",
            r"cannot be read: RuntimeError: .*torchvision\.datasets\.CIFAR10\('absent', down",
        ),
    ],
)
def test_data_sets_that_are_not_there_are_told(name, message):
    with pytest.raises(ValueError, match=message):
        data_source.read(name, "--data", options())


def test_images_of_one_channel_need_their_own_mean(here):
    write_mnist(here)
    found = data_source.read("torchvision:MNIST:.", "--data", options())
    with pytest.raises(
        ValueError, match="--mean has 3 numbers, and the images have 1 channel: pass one number for each"
    ):
        images.in_memory(found, show_progress=False)
