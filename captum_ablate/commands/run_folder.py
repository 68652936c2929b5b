"""The folder of a run: its settings, and for each layer and reference a folder with the comparison and its report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captum_ablate import __version__
from captum_ablate.commands import output_folder
from captum_ablate.evaluation.comparison import Comparison
from captum_ablate.inputs.wording import listed

SETTINGS, SAVED, REPORT, BOARD = "run.json", "comparison.json", "report.html", "leaderboard.csv"


@dataclass(frozen=True)
class RunFolder:
    """The folder that ``--out`` names; ``settings`` must be the same for all that is in it."""

    path: Path
    settings: Mapping[str, Any]

    @classmethod
    def opened(cls, name: str, settings: Mapping[str, Any], *, resume: bool, command: str) -> RunFolder:
        """Return the folder, made if it does not exist, with ``settings`` and ``command`` written into it.

        Raises:
            OSError: if it cannot be written.
            ValueError: if it holds results, and ``resume`` is False, or their settings differ.
        """
        path = Path(name).expanduser()
        stored = _stored(path)
        if stored is None and saved_in(path):
            raise ValueError(f"--out {name} holds comparisons that no run of this command made; name another folder")
        if stored is not None:
            _check(name, stored, settings, resume)
            settings = _with_stored_names(settings, stored["settings"])
        output_folder.make(name)
        about = {"captum_ablate": __version__, "command": command, "settings": settings}
        _write(path / SETTINGS, json.dumps(about, indent=1))
        return cls(path, settings)

    def of(self, layer: str, reference: str) -> Path:
        """Return the folder of a layer and a reference."""
        return self.path / re.sub(r"[^\w.-]+", "_", f"{layer}--{reference}")

    def finished(self, layer: str, reference: str) -> Comparison | None:
        """Return the comparison of a layer and a reference, or None if there is none yet."""
        folder = self.of(layer, reference)
        if not (folder / SAVED).is_file():
            return None
        comparison = Comparison.load(folder)
        if not (folder / REPORT).is_file():  # stopped between the two
            write_report(comparison, folder)
        return comparison

    def save(self, comparison: Comparison, layer: str, reference: str) -> Path:
        """Write a comparison with its report; return its folder."""
        folder = self.of(layer, reference)
        comparison.save(folder)
        write_report(comparison, folder)
        return folder


def write_report(comparison: Comparison, folder: Path) -> None:
    """Write the leaderboard and the report of a comparison into ``folder``, with the command of its run."""
    comparison.leaderboard.to_csv(folder / BOARD, index=False)
    comparison.report(folder / REPORT, command=_command(folder))


def _command(folder: Path) -> str | None:
    """Return the command of the run that a comparison's ``folder`` is in, or None if there is none to read."""
    try:
        found = _stored(folder.resolve().parent)
    except (ValueError, OSError):
        return None
    return None if found is None else found.get("command")


def saved_in(path: Path) -> list[Path]:
    """Return the folders of saved comparisons in ``path``: itself, or those that are in it."""
    return [folder for folder in (path, *sorted(path.glob("*/"))) if (folder / SAVED).is_file()]


def load_all(name: str) -> dict[Path, Comparison]:
    """Return the comparisons in the folder ``name``, by their folders.

    Raises:
        FileNotFoundError: if there are none.
    """
    path = Path(name).expanduser()
    folders = saved_in(path)
    if not folders:
        what = "holds no saved comparison" if path.is_dir() else "is no folder"
        raise FileNotFoundError(f"{name} {what}; captum-ablate compare --out {name} writes some")
    return {folder: Comparison.load(folder) for folder in folders}


def _stored(path: Path) -> dict[str, Any] | None:
    """Return what ``run.json`` holds, or None if there is none."""
    file = path / SETTINGS
    if not file.is_file():
        return None
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found["settings"], dict):
            return dict(found)
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{file} is damaged, so it is not known what is in {path}; name another --out")


def _check(name: str, stored: Mapping[str, Any], settings: Mapping[str, Any], resume: bool) -> None:
    """Raise unless a run with ``settings`` may go on in a folder where one was ``stored``."""
    if not resume:
        raise ValueError(
            f"--out {name} holds a run already; pass --resume to go on with it (what is finished is kept), or name "
            "another folder"
        )
    old = stored["settings"]
    plain = json.loads(json.dumps(settings))
    differing = [key for key in dict.fromkeys([*old, *plain]) if old.get(key) != plain.get(key)]
    told = [text for key in differing if (text := _difference(key, old.get(key), plain.get(key)))]
    if told:
        raise ValueError(
            f"--out {name} holds a run with other settings: {'; '.join(told)}. Name another folder, or repeat that "
            f"run: {stored.get('command', 'its command is not known')}"
        )


def _with_stored_names(settings: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``settings`` whose mappings keep the names of earlier commands, such as the code of their references."""
    return {
        key: {**stored[key], **value} if isinstance(value, dict) and isinstance(stored.get(key), dict) else value
        for key, value in settings.items()
    }


def _difference(key: str, there: Any, here: Any) -> str:
    """Return in words how a setting differs; of names, those that only one of both has."""
    if isinstance(there, list) and isinstance(here, list):
        only = {"there": [one for one in there if one not in here], "here": [one for one in here if one not in there]}
        parts = [f"{listed(names)} only {where}" for where, names in only.items() if names]
        return f"{key} ({', '.join(parts) or 'in another order'})"
    if isinstance(there, dict) and isinstance(here, dict):
        changed = [one for one in here if one in there and there[one] != here[one]]
        return f"{key} (changed: {listed(changed)})" if changed else ""  # what else differs is named elsewhere
    return f"{key} ({_shown(there)} there, {_shown(here)} here)"


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def _write(file: Path, text: str) -> None:
    """Write a file at once, so that a kill leaves the old one or the new one."""
    beside = file.with_name(f"{file.name}.partial")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)
