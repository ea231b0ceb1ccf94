"""Copies one registry into another, for a backup or its restoration."""

from collections.abc import Callable
from typing import NamedTuple

from rlcar.errors import RegistryError
from rlcar.registry.aliases import MAX_RECORD_BYTES, is_record
from rlcar.registry.journal import FOLDER, MAX_ENTRY_BYTES, is_entry
from rlcar.registry.store import UNREADABLE, Store
from rlcar.registry.version import (
    DELETED,
    LIMITS_BYTES,
    MANIFEST,
    folder_of,
    number_of,
    parse_manifest,
    read_version_file,
)


class Copied(NamedTuple):
    """Result of a copy."""

    versions: list[int]  # versions that were copied, oldest first
    damaged: dict[int, str]  # versions that were not copied, with the reasons
    moves: list[str]  # reasons why moves of aliases and entries of journals were not copied


def copy_registry(source: Store, target: Store) -> Copied:
    """Copies every version, move of an alias and entry of a journal that the target lacks.

    Numbers are kept, and existing files of the target are not changed, so an interrupted copy can
    be repeated. Nothing may be published into the target meanwhile. Raises RegistryError, before
    anything is written, if the stores have different versions with the same number.
    """
    found, existing = _files(source), _files(target)
    if not any(files & {MANIFEST, DELETED} for files in found.values()):
        raise RegistryError(f"there is nothing to copy: {source.place} holds no version")
    copied, damaged = [], {}
    for number in sorted(found.keys() & existing.keys()):
        if MANIFEST in found[number] and MANIFEST in existing[number]:
            try:
                is_same = _manifest(source, number) == _manifest(target, number)
            except (RegistryError, FileNotFoundError) as error:
                damaged[number] = str(error)
                continue
            if not is_same:
                raise RegistryError(
                    f"version {number} of {target.place} differs from that of {source.place}: copy "
                    "into an empty place"
                )
    for number, files in sorted(found.items()):
        known = existing.get(number, set())
        is_deleted = DELETED in files
        if (DELETED if is_deleted else MANIFEST) not in files - known or DELETED in known:
            continue
        try:
            contents = _contents(source, number, is_deleted)
        except (RegistryError, FileNotFoundError) as error:
            damaged[number] = str(error)
            continue
        for file, data in contents.items():
            target.write(f"{folder_of(number)}/{file}", data)
        if not is_deleted:
            copied.append(number)
    moves = _copy_small(source, target, "aliases", is_record, MAX_RECORD_BYTES)
    return Copied(
        copied, damaged, moves + _copy_small(source, target, FOLDER, is_entry, MAX_ENTRY_BYTES)
    )


def _files(store: Store) -> dict[int, set[str]]:
    files: dict[int, set[str]] = {}
    for name in store.names("versions"):
        number = number_of(name)
        if number is not None:
            file = name.partition("/")[2]
            # Reading the manifest will then report why the folder cannot be read.
            files.setdefault(number, set()).add(MANIFEST if file == UNREADABLE else file)
    return files


def _contents(source: Store, number: int, is_deleted: bool) -> dict[str, bytes]:
    """Reads and checks all files of one version, the manifest last."""
    if is_deleted:
        marker = f"{folder_of(number)}/{DELETED}"
        return {DELETED: source.read(marker, LIMITS_BYTES[DELETED])}
    manifest = _manifest(source, number)
    version = parse_manifest(manifest, number)
    contents = {file: read_version_file(source, version, file) for file in version.files}
    return {**contents, MANIFEST: manifest}


def _manifest(store: Store, number: int) -> bytes:
    return store.read(f"{folder_of(number)}/{MANIFEST}", LIMITS_BYTES[MANIFEST])


def _copy_small(
    source: Store, target: Store, folder: str, is_wanted: Callable[[str], bool], limit_bytes: int
) -> list[str]:
    """Copies the records that the target lacks; returns the reasons why some were not read."""
    existing = set(target.names(folder))
    problems = []
    for name in sorted(source.names(folder)):
        if name not in existing and is_wanted(name):
            try:
                data = source.read(f"{folder}/{name}", limit_bytes)
            except (RegistryError, FileNotFoundError) as error:
                problems.append(str(error))
                continue
            target.write(f"{folder}/{name}", data)
    return problems
