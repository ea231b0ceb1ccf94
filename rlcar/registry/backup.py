"""One registry copied into another: a backup, or its restoration."""

from typing import NamedTuple

from rlcar.errors import RegistryError
from rlcar.registry.aliases import is_record
from rlcar.registry.store import Store
from rlcar.registry.version import (
    DELETED,
    MANIFEST,
    folder_of,
    number_of,
    parse_manifest,
    sha256,
)


class Copied(NamedTuple):
    """What a copy did."""

    versions: list[int]  # that the target did not have, oldest first
    damaged: dict[int, str]  # that were not copied, and why


def copy_registry(source: Store, target: Store) -> Copied:
    """Brings every version and every move of an alias from one store to another.

    Numbers stay. What the target has is left alone, so a copy that was broken off goes on where it
    stopped; nobody may publish into the target meanwhile. Raises RegistryError, before anything is
    written, where both have different versions of one number.
    """
    found, there = _files(source), _files(target)
    for number in found.keys() & there.keys():
        both = MANIFEST in found[number] and MANIFEST in there[number]
        name = f"{folder_of(number)}/{MANIFEST}"
        if both and source.read(name) != target.read(name):
            raise RegistryError(
                f"version {number} of {target.place} is not that of {source.place}: copy into an "
                "empty place"
            )
    copied, damaged = [], {}
    for number, files in sorted(found.items()):
        known = there.get(number, set())
        if DELETED in files:
            if DELETED not in known:
                _copy(source, target, f"{folder_of(number)}/{DELETED}")
        elif MANIFEST in files and not {MANIFEST, DELETED} & known:
            try:
                _copy_version(source, target, number)
                copied.append(number)
            except RegistryError as error:
                damaged[number] = str(error)
    _copy_aliases(source, target)
    return Copied(copied, damaged)


def _files(store: Store) -> dict[int, set[str]]:
    files: dict[int, set[str]] = {}
    for name in store.names("versions"):
        number = number_of(name)
        if number is not None:
            files.setdefault(number, set()).add(name.partition("/")[2])
    return files


def _copy_version(source: Store, target: Store, number: int) -> None:
    """Copies one version once all of it is found to be sound; its manifest comes last."""
    folder = folder_of(number)
    manifest = source.read(f"{folder}/{MANIFEST}")
    contents = {}
    for file, known in parse_manifest(manifest, number).files.items():
        try:
            contents[file] = source.read(f"{folder}/{file}")
        except FileNotFoundError:
            raise RegistryError(f"version {number} is damaged: it has no {file}") from None
        if sha256(contents[file]) != known["sha256"]:
            raise RegistryError(f"version {number} is damaged ({file}: checksum differs)")
    for file, data in contents.items():
        target.write(f"{folder}/{file}", data)
    target.write(f"{folder}/{MANIFEST}", manifest)


def _copy_aliases(source: Store, target: Store) -> None:
    there = set(target.names("aliases"))
    for name in sorted(source.names("aliases")):
        if name not in there and is_record(name):
            _copy(source, target, f"aliases/{name}")


def _copy(source: Store, target: Store, name: str) -> None:
    target.write(name, source.read(name))
