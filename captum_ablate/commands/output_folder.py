"""The folder of pictures and tables that a command writes: made before the work starts, named when it is done."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def make(name: str | Path) -> Path:
    """Return the folder that ``--out`` names, made if it does not exist; ``~`` is the user's home folder.

    Raises:
        FileExistsError: if ``name`` is a file.
    """
    folder = Path(name).expanduser()
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--out must name a folder; {name} is a file")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def announce(folder: Path, files: Iterable[str]) -> None:
    """Print the path of ``folder`` and the files in it."""
    print(f"wrote to {folder.resolve()}:")
    print(f"  {', '.join(files)}")
