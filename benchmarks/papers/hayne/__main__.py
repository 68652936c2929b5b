"""``python -m benchmarks.papers.hayne``: the protocol on torchvision's pretrained networks and a folder of ImageNet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.papers.common.scale import Scale
from benchmarks.papers.hayne.imagenet import torchvision_subjects
from benchmarks.papers.hayne.page import networks_page


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the protocol on torchvision's pretrained networks and a folder of ImageNet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers.hayne", description=main.__doc__)
    parser.add_argument("--imagenet", type=Path, required=True, help="a folder with one folder of images per class")
    parser.add_argument("--weights", default="DEFAULT", help="a folder with alexnet.pth, ..., or DEFAULT (downloads)")
    parser.add_argument("--classes", type=int, default=20, help="classes drawn (%(default)s)")
    parser.add_argument("--images", type=int, default=50, help="most images of a class (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("hayne-torchvision"), help="folder for the page (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="few random groups and steps")
    asked = parser.parse_args(arguments)
    networks = torchvision_subjects(asked.imagenet, asked.weights, classes=asked.classes, images_per_class=asked.images)
    if len(networks) < 2:
        parser.error(f"{asked.weights} holds the weights of {len(networks)} of the networks; at least 2 are needed")
    networks_page(
        networks,
        Scale.QUICK if asked.quick else Scale.NORMAL,
        command=f"python -m benchmarks.papers.hayne --imagenet FOLDER --weights {asked.weights}",
        data=f"""
Data: torchvision's pretrained networks, {asked.classes} classes of ImageNet drawn at random, up to {asked.images}
images of
each, one half for the scores and the other for the deficits.""",
        keep=False,
        folder=asked.out,
    )


if __name__ == "__main__":
    main()
