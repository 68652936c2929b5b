"""A folder of images: classes by subfolder, prepared as torchvision does, bad files named, sizes checked."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from captum_ablate.commands import data_source, images

torchvision = pytest.importorskip("torchvision")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Photos of cats and dogs, 40 x 30, one of them in a folder inside; and a file that is no image."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for name in ("dog/1.png", "dog/2.png", "cat/a.png", "cat/more/b.jpg", "cat/c.PNG"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def options(*arguments):
    parser = argparse.ArgumentParser()
    images.add_arguments(parser)
    return parser.parse_args(arguments)


def read(*arguments, own=None):
    return data_source.read("imagefolder:photos", "--data", options(*arguments), own=own)


def test_images_are_those_of_torchvisions_folder(folder):
    prepare = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(256),
            torchvision.transforms.CenterCrop(224),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(images.IMAGENET_MEAN, images.IMAGENET_STD),
        ]
    )
    expected = torchvision.datasets.ImageFolder(str(folder), prepare)
    x, y = images.in_memory(read(), show_progress=False)
    assert torch.equal(y, torch.tensor(expected.targets))
    assert torch.allclose(x, torch.stack([image for image, _ in expected]), atol=1e-6)


def test_images_of_the_wanted_size_stay_as_they_are(folder):
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "dog" / "0.png")
    x, _ = images.in_memory(read("--size", "16", "--mean", "0,0,0", "--std", "1,1,1").take([3]), show_progress=False)
    assert torch.allclose(x[0], torch.from_numpy(pixels).permute(2, 0, 1) / 255)


def test_the_weights_own_preparation_is_used_unless_options_say_another():
    def own(image):
        return torch.zeros(1)

    assert images.in_memory(read(own=own), show_progress=False)[0].shape == (5, 1)
    assert images.in_memory(read("--size", "8", own=own), show_progress=False)[0].shape == (5, 3, 8, 8)


def test_a_transform_of_the_users_replaces_all(folder):
    (folder.parent / "prepare_photos.py").write_text(
        "import torch\ndef width(image):\n    return torch.tensor([float(image.width)])\n"
        "def none(image):\n    return None\ndef bad(image):\n    raise KeyError('x')\n"
    )
    x, _ = images.in_memory(read("--transform", "prepare_photos.py:width"), show_progress=False)
    assert x.tolist() == [[40.0]] * 5
    with pytest.raises(TypeError, match=r"--transform prepare_photos\.py:none must return a Tensor"):
        images.in_memory(read("--transform", "prepare_photos.py:none"), show_progress=False)
    with pytest.raises(ValueError, match=r"--transform prepare_photos\.py:bad failed with KeyError"):
        images.in_memory(read("--transform", "prepare_photos.py:bad"), show_progress=False)
    with pytest.raises(ValueError, match="--transform replaces --size; pass one of them"):
        read("--transform", "prepare_photos.py:width", "--size", "4")


def test_unreadable_images_are_all_named_or_left_out_and_counted(folder, capsys):
    whole = (folder / "dog" / "1.png").read_bytes()
    (folder / "dog" / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "a.png").write_text("no image")
    with pytest.raises(
        ValueError, match=r"2 of 5 images cannot be read: photos/cat/a\.png \(.*photos/dog/1\.png \(.*--skip"
    ):
        images.in_memory(read(), show_progress=False)
    x, y = images.in_memory(read("--skip-bad"), show_progress=False)
    assert len(x) == 3
    assert y.tolist() == [0, 0, 1]
    assert "left out 2 of 5 images that cannot be read: photos/cat/a.png (" in capsys.readouterr().out


def test_too_many_images_for_memory_are_read_again_in_each_pass(monkeypatch):
    kept = images.in_memory(read("--size", "8"), show_progress=False)
    monkeypatch.setattr(images, "LARGEST", 1000)
    found = images.in_memory(read("--size", "8"), show_progress=False)
    assert isinstance(found, DataLoader)
    x, y = next(iter(found))
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "0"], "--size must be at least 1; got 0"),
        (["--std", "1,0,1"], "--std must be positive"),
        (["--mean", "1,2"], "--mean has 2 numbers, and the images have 3 channels"),
        (["--transform", "absent:f"], "there is no module 'absent'"),
    ],
)
def test_wrong_options_are_told(arguments, message):
    with pytest.raises((ValueError, ImportError), match=message):
        images.in_memory(read(*arguments), show_progress=False)


def test_images_of_several_sizes_are_told(folder):
    (folder.parent / "as_they_are.py").write_text(
        "import torch, numpy\ndef f(image):\n    return torch.from_numpy(numpy.array(image))\n"
    )
    Image.new("RGB", (5, 5)).save(folder / "dog" / "3.png")
    with pytest.raises(
        ValueError, match=r"images differ in size: .* is \(30, 40, 3\) and photos/dog/3\.png \(5, 5, 3\)"
    ):
        images.in_memory(read("--transform", "as_they_are.py:f"), show_progress=False)


def test_folders_without_classes_or_images_are_told(folder):
    (folder / "bird").mkdir()
    with pytest.raises(ValueError, match=r"no images \(.*\) in the class 'bird'"):
        read()
    with pytest.raises(ValueError, match=r"must have a subfolder of images for each class, such as photos/dog/cat"):
        data_source.read("imagefolder:photos/dog", "--data", options())
    with pytest.raises(FileNotFoundError, match=r"there is no folder absent \(--data\)"):
        data_source.read("imagefolder:absent", "--data", options())
