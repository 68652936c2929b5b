"""A folder that is not ImageNet is refused."""

from __future__ import annotations

import pytest
from PIL import Image

from benchmarks.papers.hayne import imagenet


def test_a_folder_that_is_not_imagenet_is_refused(tmp_path):
    pytest.importorskip("torchvision")
    (tmp_path / "n01").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "n01" / "a.png")
    with pytest.raises(ValueError, match=r"1,000 classes of ImageNet, .* it holds 1 folders"):
        imagenet._folder_images(tmp_path, 2, 4)
