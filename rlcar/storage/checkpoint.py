"""Checkpoints: one folder for each save, which is complete or absent.

    <folder>/step-000012000/
        state.safetensors             everything that training needs to continue
        replay.safetensors            and any other extra file
        config.json
        meta.json                     counters, versions, checksums, the tree of arrays;
                                      `needs` names the earlier saves that this one builds on
        DONE                          written last; holds the checksum of meta.json

A save is written under the name `.saving-…` and then renamed, so no incomplete one is ever found.
"""

import contextlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlcar.errors import CheckpointError, reason_of
from rlcar.storage.arrays import (
    Arrays,
    Rows,
    as_like,
    check_finite,
    first_difference,
    flatten,
    leaf_name,
    map_arrays,
    most_bytes,
    read_arrays,
    safetensors_bytes,
    storable_array,
)
from rlcar.storage.saves import (
    DELETED,
    REPLACED,
    SAVING,
    STEP_NAME,
    Save,
    find,
    needs,
    saves,
)
from rlcar.storage.saves import is_save_name as is_save_name
from rlcar.system import durable
from rlcar.system.provenance import provenance
from rlcar.system.regular_file import MAX_TEXT_BYTES, read_regular

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1


def save(
    folder: Path,
    env_steps: int,
    state: Mapping[str, Any],
    *,
    config_json: str,
    meta: Mapping[str, Any],
    extra_files: Mapping[str, Mapping[str, Any]] | None = None,
) -> Save:
    """Writes a save completely or not at all; replaces an earlier save of the same `env_steps`.

    `state` is a pytree of arrays, ints, floats and bools; `meta` may hold train_steps, metric,
    seed, needs and any JSON; `extra_files` maps a name to the arrays of `<name>.safetensors`.
    Raises NonFiniteError, CheckpointError for a full disk, and TypeError for an unknown dtype.
    """
    arrays = flatten(state)
    check_finite(arrays)
    trees: dict[str, Mapping[str, Any]] = {"state": arrays}
    for name, extra in (extra_files or {}).items():
        if name == "state" or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(
                f"an extra file cannot be called {name!r}: use small letters, digits and _"
            )
        trees[name] = {
            key: value if isinstance(value, Rows) else storable_array(key, value)
            for key, value in extra.items()
        }
    target = Path(folder) / f"step-{env_steps:09d}"
    with _all_or_nothing(target) as partial:
        checksums = {
            "config.json": durable.write_new(partial / "config.json", [config_json.encode()])
        }
        for name, tree in trees.items():
            file = f"{name}.safetensors"
            checksums[file] = durable.write_new(partial / file, safetensors_bytes(tree))
        text = json.dumps(_meta(env_steps, meta, checksums, trees), indent=2, allow_nan=False)
        meta_checksum = durable.write_new(partial / "meta.json", [text.encode()])
        durable.sync_folder(partial)
        durable.write_new(partial / "DONE", [meta_checksum.encode()])
        durable.sync_folder(partial)
        _put_in_place(partial, target)
    return Save(target, env_steps, json.loads(text))


def load(save_or_path: Save | Path | str, like: Any, part: str | None = None) -> Any:
    """Reads a save's state into the structure of `like`, with leaves of the same kinds.

    `part` reads only one top-level entry of the state. `like` may hold
    `jax.ShapeDtypeStruct`s. Raises CheckpointError for an absent or damaged save
    (naming the newest earlier one that is sound) and for another architecture (naming the array).
    """
    save = open_save(save_or_path)
    _check(save, ["config.json", "state.safetensors"])
    stored = read_arrays(save.path / "state.safetensors")
    if part is not None:
        like = {part: like}
        stored = {name: stored[name] for name in stored if name.split(".")[0] == part}
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {leaf_name(path): leaf for path, leaf in paths}
    difference = first_difference(wanted, stored)
    if difference:
        raise CheckpointError(
            f"{save.path} was trained with another architecture (see {save.path / 'config.json'}): "
            f"{difference}"
        )
    leaves = [as_like(leaf, stored[name]) for name, leaf in wanted.items()]
    tree = jax.tree_util.tree_unflatten(structure, leaves)
    return tree if part is None else tree[part]


def load_arrays(save_or_path: Save | Path | str, part: str) -> Arrays:
    """Reads the stored arrays of one top-level entry of a save's state, named as within that entry.

    Raises CheckpointError for an absent or damaged save.
    """
    save = open_save(save_or_path)
    _check(save, ["config.json", "state.safetensors"])
    stored = read_arrays(save.path / "state.safetensors")
    prefix = f"{part}."
    return {name.removeprefix(prefix): stored[name] for name in stored if name.startswith(prefix)}


def load_extra(save_or_path: Save | Path | str, name: str) -> Arrays:
    """Reads `<name>.safetensors`; raises CheckpointError when it is absent or damaged."""
    return read_arrays(_extra(save_or_path, name))


def map_extra(save_or_path: Save | Path | str, name: str) -> Arrays:
    """Memory-maps `<name>.safetensors`, which may be too large to copy; raises CheckpointError."""
    return map_arrays(_extra(save_or_path, name))


def _extra(save_or_path: Save | Path | str, name: str) -> Path:
    save = open_save(save_or_path)
    file = f"{name}.safetensors"
    _check(save, [])
    if file not in save.meta["sha256"]:
        raise CheckpointError(f"{save.path} was saved without {file}")
    _check(save, [file])
    return save.path / file


def config_path(save: Save) -> Path:
    """Returns the path of a save's settings; raises CheckpointError when they are damaged."""
    _check(save, ["config.json"])
    return save.path / "config.json"


def latest(folder: Path) -> Save | None:
    """Returns the newest complete save."""
    found = saves(folder)
    return found[-1] if found else None


def open_save(save_or_path: Save | Path | str) -> Save:
    """Returns the save at a path, or the newest one of a folder of saves.

    Raises CheckpointError without a complete save, and names the newest earlier one.
    """
    path = save_or_path.path if isinstance(save_or_path, Save) else Path(save_or_path).resolve()
    save = find(path.parent, path.name.removeprefix(REPLACED)) or latest(path)
    if save is None:
        why = "it holds no DONE" if path.is_dir() else "there is no such folder"
        raise CheckpointError(f"{path} is not a complete save: {why}; {_fallback(path)}")
    return save


def keep(folder: Path, newest: int, at_most_env_steps: int | None = None) -> None:
    """Deletes all saves except the newest ones and those that they need.

    With `at_most_env_steps`, the newest save that is not later is kept as well. Raises ValueError
    for `newest` below 1.
    """
    if newest < 1:
        raise ValueError(f"keep(newest={newest}) would delete every save; keep at least 1")
    complete = saves(folder)
    kept = complete[-newest:]
    if at_most_env_steps is not None:
        kept += [save for save in complete if save.env_steps <= at_most_env_steps][-1:]
    names = {_name(save) for save in kept} | {name for save in kept for name in needs(save)}
    for save in complete:
        if _name(save) not in names:
            _delete(save)


def delete_all(doomed: Iterable[Save]) -> None:
    """Deletes saves; nobody may be writing to their folder."""
    for save in doomed:
        _delete(save)


def latest_sound(folder: Path) -> Save | None:
    """Returns the newest undamaged save, or None; warns of each newer one that is damaged.

    The files of the saves that it needs are checked too.
    """
    for save in reversed(saves(folder)):
        why = damage(save)
        if not why:
            return save
        logger.warning("skipping %s: it is damaged (%s)", save.path, why)
    return None


def damage(save: Save) -> str:
    """Returns the first damaged file of a save, or of one that it needs; empty if there is none."""
    for name in needs(save):
        needed = find(save.path.parent, name)
        if needed is None:
            return f"{name}, which it needs, is missing"
        found = _damage(needed)
        if found:
            return f"{name}, which it needs: {found}"
    return _damage(save)


def rewind(folder: Path, to: Save) -> None:
    """Deletes the saves later than `to`, which a resumed training will write again.

    Otherwise they would stay `latest`, and `keep` would prefer them to the new saves.
    """
    for save in saves(folder):
        if save.env_steps > to.env_steps:
            _delete(save)


def _name(save: Save) -> str:
    return f"step-{save.env_steps:09d}"


def _delete(save: Save) -> None:
    # Renamed first, so that a partly deleted folder does not look like a damaged save.
    doomed = save.path.with_name(DELETED + save.path.name)
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(save.path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _check(save: Save, files: list[str]) -> None:
    """Raises CheckpointError unless meta.json and these files are undamaged."""
    damage = _damage(save, files)
    if damage:
        raise CheckpointError(f"{save.path} is damaged ({damage}); {_fallback(save.path)}")
    if save.meta["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"{save.path} has format version {save.meta['format_version']}; this rlcar reads "
            f"{FORMAT_VERSION}: install the version that wrote it, {save.meta['versions']['rlcar']}"
        )


def _damage(save: Save, files: list[str] | None = None) -> str:
    """Returns the first damaged file of `files`, by default of all; empty if there is none."""
    try:
        done = read_regular(save.path / "DONE").decode(errors="replace")
        if durable.checksum(save.path / "meta.json", MAX_TEXT_BYTES) != done:
            return "meta.json: checksum differs"
        for file in save.meta["sha256"] if files is None else files:
            limit = most_bytes(save.meta.get("arrays", {}).get(file))
            if durable.checksum(save.path / file, limit) != save.meta["sha256"][file]:
                return f"{file}: checksum differs"
    except OSError as error:
        return f"{Path(error.filename or save.path).name}: {reason_of(error)}"
    return ""


def _fallback(path: Path) -> str:
    match = STEP_NAME.fullmatch(path.name.removeprefix(REPLACED))
    for save in reversed(saves(path.parent) if match else []):
        if match and save.env_steps < int(match[1]) and not damage(save):
            return f"the previous complete one is {save.path}: resume with --resume {save.path}"
    return "there is no earlier complete one"


@contextlib.contextmanager
def _all_or_nothing(target: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; after an error removes it and names the intact checkpoint."""
    partial = target.with_name(SAVING + target.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clean(target.parent)
        partial.mkdir()
        yield partial
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        last = latest(target.parent)
        rest = f"the last good checkpoint {last.path} is intact" if last else "there is no other"
        raise CheckpointError(f"cannot save {target}: {reason_of(error)}; {rest}") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _clean(folder: Path) -> None:
    """Removes what a killed process left, and restores a save that it had moved aside."""
    for path in folder.iterdir():
        target = path.with_name(path.name.removeprefix(REPLACED))
        if path.name.startswith(REPLACED) and not target.exists():
            os.replace(path, target)
        elif path.name.startswith((SAVING, REPLACED, DELETED)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _put_in_place(partial: Path, target: Path) -> None:
    aside = target.with_name(REPLACED + target.name)
    if target.exists():
        os.replace(target, aside)
    try:
        os.replace(partial, target)
    except OSError:
        if aside.exists():
            os.replace(aside, target)
        raise
    durable.sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _meta(
    env_steps: int,
    given: Mapping[str, Any],
    checksums: Mapping[str, str],
    trees: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "train_steps": None,
        "metric": None,
        **{name: _json_value(value) for name, value in given.items()},
        **provenance(_json_value(given.get("seed"))),
        "env_steps": env_steps,
        "sha256": checksums,
        "arrays": {
            f"{file}.safetensors": {
                name: {"shape": list(array.shape), "dtype": str(array.dtype)}
                for name, array in arrays.items()
            }
            for file, arrays in trees.items()
        },
    }


def _json_value(value: Any) -> Any:
    """Converts 0-d arrays for JSON; a NaN or an infinity, which JSON lacks, becomes null."""
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        value = np.asarray(value).tolist()
    return None if isinstance(value, float) and not math.isfinite(value) else value
