"""What travels with a job, and what does not."""

import os
import zipfile

import pytest

from cluster.jobs.package import LIMIT_BYTES, is_project, pack
from rlcar.errors import UserError


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    for name in ("rlcar/__init__.py", "cluster/__init__.py", "tests/test_x.py", "runs/a/big"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".gitignore").write_text("/runs/\n")
    (folder / ".rayignore").write_text("/tests/\n*.gif\n")
    (folder / "rlcar" / "lap.gif").write_text("")
    (folder / "rlcar" / "__pycache__").mkdir()
    (folder / "rlcar" / "__pycache__" / "x.pyc").write_text("")
    return folder


def names_in(package):
    with zipfile.ZipFile(package.path) as archive:
        return set(archive.namelist())


def test_a_checkout_travels_without_what_is_ignored(project, tmp_path):
    package = pack(project, [], tmp_path / "job.zip")
    ours = {"rlcar/__init__.py", "cluster/__init__.py"}
    assert names_in(package) == ours | {".gitignore", ".rayignore"}
    assert package.source == project
    assert package.files == 4


def test_elsewhere_the_installed_program_travels_with_the_files_that_are_named(tmp_path):
    here = tmp_path / "here"
    (here / "settings").mkdir(parents=True)
    (here / "settings" / "x.yaml").write_text("seed: 3\n")
    (here / "y.yaml").write_text("seed: 4\n")
    (here / "unnamed").write_text("")
    arguments = ["train", "--config", "settings/x.yaml", "--other=y.yaml", "../here/unnamed"]
    names = names_in(pack(here, arguments, tmp_path / "job.zip"))
    assert {
        "rlcar/cli/__init__.py",
        "cluster/training/loop.py",
        "settings/x.yaml",
        "y.yaml",
    } <= names
    assert {name.split("/")[0] for name in names} == {
        *("rlcar", "cluster", "serve", "settings", "y.yaml")
    }
    assert not any("__pycache__" in name for name in names)


def test_the_same_files_make_the_same_archive_whatever_their_times(project, tmp_path):
    first = pack(project, [], tmp_path / "first.zip").path.read_bytes()
    os.utime(project / "rlcar" / "__init__.py", (0, 0))
    assert pack(project, [], tmp_path / "second.zip").path.read_bytes() == first


def test_too_much_is_refused_before_it_is_packed_and_the_biggest_folders_are_named(
    project, tmp_path
):
    for name, size in (("data/films/a", LIMIT_BYTES), ("data/films/b", 2**21), ("x", 2**20)):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        with (project / name).open("wb") as file:
            file.truncate(size)
    with pytest.raises(
        UserError, match=r"10\d,\d{3},\d{3} bytes, more than the 104,857,600 that"
    ) as caught:
        pack(project, [], tmp_path / "job.zip")
    assert "the largest: data/films/ 102 MiB, x 1 MiB" in str(caught.value)
    assert ".rayignore" in str(caught.value)
    assert not (tmp_path / "job.zip").exists()
    (project / ".rayignore").write_text("/data/\n")
    assert pack(project, [], tmp_path / "job.zip").files < 10


def test_links_to_folders_are_not_followed(project, tmp_path):
    (project / "loop").symlink_to(project)
    assert not any(name.startswith("loop") for name in names_in(pack(project, [], tmp_path / "z")))


def test_a_folder_with_both_packages_is_a_project(project, tmp_path):
    assert is_project(project)
    assert not is_project(tmp_path)
