"""Links to folders: made, moved, and never at the cost of what is there."""

import pytest
from comfyui_wanvideo.tools.development.layout import link_directory, remove_link


def test_a_link_is_made_and_pointed_elsewhere(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        link_directory(tmp_path / "deep" / "link", tmp_path / name)
        assert (tmp_path / "deep" / "link").resolve() == tmp_path / name


def test_a_link_whose_target_is_gone_is_replaced(tmp_path):
    (tmp_path / "old").mkdir()
    link_directory(tmp_path / "link", tmp_path / "old")
    (tmp_path / "old").rmdir()
    (tmp_path / "new").mkdir()
    link_directory(tmp_path / "link", tmp_path / "new")
    assert (tmp_path / "link").resolve() == tmp_path / "new"


def test_a_real_folder_with_files_is_never_removed(tmp_path):
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "work").touch()
    with pytest.raises(OSError, match="link"):
        link_directory(tmp_path / "link", tmp_path)
    assert (tmp_path / "link" / "work").exists()


def test_removing_a_link_leaves_its_target(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "work").touch()
    link_directory(tmp_path / "link", tmp_path / "target")
    remove_link(tmp_path / "link")
    assert not (tmp_path / "link").exists()
    assert (tmp_path / "target" / "work").exists()
