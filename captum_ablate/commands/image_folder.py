"""A folder of images, one subfolder for each class, in alphabetical order as in torchvision's ImageFolder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from captum_ablate.commands.images import Images, Preparation

PREFIX = "imagefolder:"

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
"""Those of torchvision's ImageFolder; other files are no images."""


def read(name: str, option: str, preparation: Preparation) -> Images:
    """Return the images of the folder ``name``; those below a class's folder belong to it, at any depth.

    Raises:
        OSError, ValueError: if there is no such folder, or it has no subfolders with images. The text names ``option``.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {name} ({option})")
    classes = sorted(one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    if not classes:
        raise ValueError(
            f"{option} {PREFIX}{name} must have a subfolder of images for each class, such as {name}/cat and "
            f"{name}/dog; it has none"
        )
    files = [
        (file, k) for k, one in enumerate(classes) for file in sorted((folder / one).rglob("*")) if _is_image(file)
    ]
    empty = [one for k, one in enumerate(classes) if not any(label == k for _, label in files)]
    if empty:
        raise ValueError(
            f"{option} {PREFIX}{name}: no images ({', '.join(sorted(SUFFIXES))}) in the class "
            f"{', '.join(map(repr, empty[:3]))}; folders number the classes, so remove an empty one only if the model "
            "does not know it"
        )
    paths = [file for file, _ in files]
    return Images([str(path) for path in paths], [label for _, label in files], lambda k: _open(paths[k]), preparation)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.is_file()


def _open(file: Path) -> Any:
    from PIL import Image  # imported late: only images need it

    with Image.open(file) as image:
        return image.convert("RGB")
