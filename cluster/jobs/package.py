"""Packs the program and the files that a job names into one archive, within Ray's size limit."""

import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE, get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

import cluster
import rlcar
from rlcar.errors import UserError, reason_of

PACKAGES = ("rlcar", "cluster", "serve")
LIMIT_BYTES = DASHBOARD_CLIENT_MAX_SIZE
_MIB = 2**20
# A fixed time makes equal archives of equal files, so that Ray uploads them only once.
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


class Package(NamedTuple):
    """An archive and its description."""

    path: Path
    files: int
    size_bytes: int
    source: Path


def is_project(folder: Path) -> bool:
    """Says whether a folder is a checkout of this program."""
    return all((folder / name / "__init__.py").is_file() for name in ("rlcar", "cluster"))


def pack(folder: Path, arguments: Sequence[str], target: Path) -> Package:
    """Packs a checkout, or the installed program if `folder` is no checkout, into `target` (.zip).

    Includes files that `arguments` name by a relative path, but not what .gitignore or .rayignore
    excludes. Raises UserError, before anything is written, if it is larger than LIMIT_BYTES.
    """
    files: dict[str, Path] = {}
    if is_project(folder):
        source = folder
        files |= {str(path.relative_to(folder)): path for path in _files(folder, [])}
    else:
        source = _installed()
        for name in PACKAGES:
            files |= {
                str(path.relative_to(source)): path for path in _files(source / name, [_is_cache])
            }
    files |= {name: folder / name for name in _named_files(folder, arguments)}
    _require_small(files, source)
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(files):
                info = zipfile.ZipInfo(name, _TIMESTAMP)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (files[name].stat().st_mode & 0xFFFF) << 16
                archive.writestr(info, files[name].read_bytes())
    except OSError as error:
        raise UserError(f"cannot pack {error.filename or target}: {reason_of(error)}") from error
    return Package(target, len(files), target.stat().st_size, source)


def _installed() -> Path:
    source = Path(rlcar.__file__).parent.parent
    assert Path(cluster.__file__).parent.parent == source, "one distribution holds both packages"
    return source


def _files(folder: Path, excluded: list[Callable[[Path], bool]]) -> Iterator[Path]:
    """Yields the files below a folder; does not follow links to folders."""
    excluded = [*excluded, *get_excludes_from_ignore_files(folder, include_gitignore=True)]
    always = get_runtime_env_default_excludes()
    for path in sorted(folder.iterdir()):
        if path.name in always or any(is_excluded(path) for is_excluded in excluded):
            continue
        if path.is_dir():
            if not path.is_symlink():
                yield from _files(path, excluded)
        elif path.is_file():
            yield path


def _is_cache(path: Path) -> bool:
    return path.name == "__pycache__"


def _named_files(folder: Path, arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        name = argument.partition("=")[2] if argument.startswith("--") else argument
        path = Path(name)
        if name and not path.is_absolute() and ".." not in path.parts and (folder / path).is_file():
            yield str(path)


def _require_small(files: dict[str, Path], source: Path) -> None:
    sizes: Counter[str] = Counter()
    for name, path in files.items():
        parts = Path(name).parts
        sizes["/".join(parts[: min(2, len(parts) - 1)]) + "/" if parts[1:] else name] += (
            path.stat().st_size
        )
    if sizes.total() > LIMIT_BYTES:
        biggest = ", ".join(f"{name} {size / _MIB:.0f} MiB" for name, size in sizes.most_common(4))
        raise UserError(
            f"{source} holds {sizes.total():,} bytes, more than the {LIMIT_BYTES:,} that Ray "
            f"accepts for a job; the largest: {biggest}: list what the job does not need in "
            ".rayignore"
        )
