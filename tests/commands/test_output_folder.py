"""The folder of a command: made if absent; what cannot be written to is told before the work starts."""

from __future__ import annotations

import pytest

from captum_ablate.commands import output_folder


def test_a_folder_is_made_and_left_empty(tmp_path):
    folder = output_folder.make(tmp_path / "new" / "out")
    assert folder.is_dir()
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/nothing/here"])
def test_a_place_that_cannot_be_written_to_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=f"--out .*{name.split('/')[0]}") as caught:
        output_folder.make(name)
    assert "\n" not in str(caught.value)
