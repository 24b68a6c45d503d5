import os
import stat

import pytest

from kseq.atomic import atomic_file, atomic_folder, write_text


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder"
    with pytest.raises(RuntimeError), atomic_folder(path) as temporary:
        (temporary / "half").write_text("")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with atomic_folder(path) as temporary:
        (temporary / "file").write_text("whole")
    assert [entry.name for entry in path.iterdir()] == ["file"]


def test_a_folder_with_content_is_not_replaced(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "precious").write_text("")
    with pytest.raises(OSError), atomic_folder(path) as temporary:  # noqa: PT011  the system's own words
        (temporary / "file").write_text("")
    assert [entry.name for entry in path.iterdir()] == ["precious"]
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_ordinary_files(tmp_path):
    mask = os.umask(0o022)
    try:
        write_text(tmp_path / "file.txt", "")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o644
