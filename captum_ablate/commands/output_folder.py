"""The folder of pictures and tables that a command writes: made before the work starts, named when it is done."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile


def make(name: str | Path) -> Path:
    """Return the folder that ``--out`` names, made if it does not exist; ``~`` is the user's home folder.

    Raises:
        OSError: if ``name`` is a file, or nothing can be made or written there.
    """
    folder = Path(name).expanduser()
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--out must name a folder; {name} is a file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):  # before the work starts, not after it
            return folder
    except OSError as error:
        raise OSError(f"--out {name} must name a folder to write into: {error.strerror or error}") from error


def announce(folder: Path, files: Iterable[str]) -> None:
    """Print the path of ``folder`` and the files in it."""
    print(f"wrote to {folder.resolve()}:")
    print(f"  {', '.join(files)}")
