"""Copies of runs in an object store or on another disk.

<storage>/<run>/config.json, run.json, stage.json (of an attempt of a curriculum)
          <run>/metrics/00000.jsonl       parts of metrics.jsonl, so that a push sends only its end
          <run>/checkpoints/step-…/       as in the run's folder; DONE is sent last
          <run>/best/step-…/

A save without DONE does not count, so an incomplete push is never fetched.
"""

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow
from pyarrow import fs

from rlcar.errors import StorageError
from rlcar.storage import checkpoint
from rlcar.storage.location import Location as Location
from rlcar.storage.location import connect, explain, parse_storage
from rlcar.system import durable, heartbeat
from rlcar.system.lease import hold
from rlcar.system.regular_file import MAX_TEXT_BYTES, open_regular, read_regular

_PART_BYTES = 4 * 2**20
_NOTE = "stage.json"  # which attempt of which curriculum a run is: `rlcar.runs.stage_note`
_FETCHING = ".saving-"  # the prefix of an unfinished save, which the next save removes


class StoredRun(NamedTuple):
    """A run in the storage that can be continued."""

    name: str
    env_steps: int
    written: datetime


class Storage:
    """The runs at one address; not thread-safe."""

    def __init__(self, url: str) -> None:
        """Raises StorageError for an invalid address; does not connect yet."""
        self._url, self._location = url, parse_storage(url)
        self._base = self._location.path
        self._connected: fs.FileSystem | None = None
        self._metrics_sent = 0  # bytes of metrics.jsonl
        self._is_ours = False  # whether the stored run of our name is known to be this one

    def check(self) -> None:
        """Writes and removes a file; raises StorageError if that fails."""
        probe = f"{self._base}/.probe-{os.getpid()}"
        with self._reaching():
            self._files.create_dir(self._base, recursive=True)
            with self._files.open_output_stream(probe) as file:
                file.write(b"rlcar")
            self._files.delete_file(probe)

    def push(self, folder: Path) -> None:
        """Updates the storage with the content of the run's folder; raises StorageError."""
        name = folder.resolve().name  # the path `.` has no name
        target = f"{self._base}/{name}"
        with self._reaching():
            if not self._is_ours:
                self._refuse_other_run(folder, name)
            self._files.create_dir(target, recursive=True)
            for name in ("config.json", "run.json", _NOTE):
                if (folder / name).exists():
                    with open_regular(folder / name) as file:
                        self._put(file, f"{target}/{name}")
            self._push_metrics(folder / "metrics.jsonl", f"{target}/metrics")
            for part in ("best", "checkpoints"):
                self._push_saves(folder / part, f"{target}/{part}")

    def runs(self, name: str | None = None) -> list[StoredRun]:
        """Lists the runs with a complete checkpoint, or only that of the given name."""
        found = []
        with self._reaching():
            for entry in self._list(self._base):
                if entry.type == fs.FileType.Directory and name in (None, entry.base_name):
                    saves = self._saves(f"{entry.path}/checkpoints")
                    if saves:
                        newest = max(saves, key=_env_steps)
                        run = StoredRun(entry.base_name, _env_steps(newest), saves[newest].mtime)
                        found.append(run)
        return found

    def fetch(self, name: str, root: Path) -> checkpoint.Save | None:
        """Downloads a run into `root` with its newest undamaged checkpoint; None if it has none.

        Raises HeldError while another process works in that folder.
        """
        source, folder = f"{self._base}/{name}", root / name
        with hold(folder), self._reaching():
            for file in ("config.json", "run.json", *([_NOTE] if self._has_note(name) else [])):
                self._get([f"{source}/{file}"], folder / file)
            parts = sorted(entry.path for entry in self._list(f"{source}/metrics"))
            self._get(parts, folder / "metrics.jsonl")
            for best in sorted(self._saves(f"{source}/best")):
                self._get_save(f"{source}/best/{best}", folder / "best" / best)
            for step_name in sorted(self._saves(f"{source}/checkpoints"), reverse=True):
                save = self._fetch_checkpoint(
                    f"{source}/checkpoints", step_name, folder / "checkpoints"
                )
                if save is not None:
                    return save
        return None

    def fetch_newer(self, root: Path, resume: str, name: str | None) -> checkpoint.Save | None:
        """Downloads the run that `--resume` means, if it is newer in the storage than in `root`.

        `auto` means the run that was written last in either place, and without a name no attempt of
        a curriculum; otherwise `resume` is the folder of a run. Raises StorageError, also if the
        address is that of a single run.
        """
        if resume == "auto":
            self._refuse_run_as_base()
            stored = max(self._meant_by_auto(name), key=lambda run: run.written, default=None)
            pattern = "*" if name is None else glob.escape(name)
            newest = [
                checkpoint.latest(folder)
                for folder in root.glob(f"{pattern}/checkpoints")
                if name is not None or not (folder.parent / _NOTE).exists()
            ]
            local_saves = [save for save in newest if save is not None]
            if stored and any(_is_later(save, stored, root) for save in local_saves):
                return None
        else:
            folder = Path(resume).resolve()  # only then do `.` and `runs/x/..` have a name
            stored = next(iter(self.runs(folder.name)), None)
            root = folder.parent
            newest_there = checkpoint.latest(folder / "checkpoints")
            if stored and newest_there and newest_there.env_steps >= stored.env_steps:
                return None
        return self.fetch(stored.name, root) if stored else None

    def _meant_by_auto(self, name: str | None) -> list[StoredRun]:
        runs = self.runs(name)
        with self._reaching():
            return [run for run in runs if name is not None or not self._has_note(run.name)]

    def _has_note(self, name: str) -> bool:
        """Whether a stored run is an attempt of a curriculum."""
        info = self._files.get_file_info(f"{self._base}/{name}/{_NOTE}")
        return bool(info.type == fs.FileType.File)

    def _refuse_run_as_base(self) -> None:
        """Raises StorageError for the address of a single run, which seems to hold no runs."""
        with self._reaching():
            is_run = bool(self._saves(f"{self._base}/checkpoints"))
        if is_run and not self.runs():
            raise StorageError(
                f"{self._url} is itself a stored run (it holds checkpoints/): name the folder "
                "above it with --storage. If it was mirrored there by mistake, move what it holds "
                "into a folder with the run's name"
            )

    def _refuse_other_run(self, folder: Path, name: str) -> None:
        """Raises StorageError if another machine stored another run of the same name."""
        path = f"{self._base}/{name}/run.json"
        is_there = self._files.get_file_info(path).type == fs.FileType.File
        ours = (folder / "run.json").read_bytes() if (folder / "run.json").exists() else b""
        if is_there and ours and self._read(path) != ours and self.runs(name):
            raise StorageError(
                f"{self._url} holds another run that is called {name}: it is left as it is, and "
                "this run is not mirrored. Stop it, rename its folder, and continue it"
            )
        self._is_ours = bool(ours)

    @property
    def _files(self) -> fs.FileSystem:
        if self._connected is None:
            self._connected = connect(self._location)
        return self._connected

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pyarrow.ArrowException) as error:
            raise StorageError(explain(self._url, self._location, error)) from error

    def _list(self, path: str) -> list[fs.FileInfo]:
        return self._files.get_file_info(fs.FileSelector(path, allow_not_found=True))

    def _saves(self, path: str) -> dict[str, fs.FileInfo]:
        """Maps each complete save's name to the file info of its DONE."""
        names = [
            entry.base_name
            for entry in self._list(path)
            if checkpoint.is_save_name(entry.base_name)
        ]
        done = self._files.get_file_info([f"{path}/{name}/DONE" for name in names])
        pairs = zip(names, done, strict=True)
        return {name: entry for name, entry in pairs if entry.type == fs.FileType.File}

    def _push_saves(self, folder: Path, target: str) -> None:
        local = [save.path for save in checkpoint.saves(folder)]
        complete = self._saves(target)
        for path in local:  # oldest first, because a save needs earlier ones
            try:
                done = read_regular(path / "DONE")
                if path.name in complete and self._read(f"{target}/{path.name}/DONE") == done:
                    continue
                self._push_save(path, f"{target}/{path.name}", path.name in complete)
            except FileNotFoundError:
                if path.exists():
                    raise  # then the file is missing in the storage
        names = {path.name for path in local}
        for entry in self._list(target):
            if names and entry.base_name not in names and checkpoint.is_save_name(entry.base_name):
                self._delete_save(entry.path, entry.base_name in complete)

    def _push_save(self, path: Path, target: str, replaces: bool) -> None:
        if replaces:
            self._files.delete_file(f"{target}/DONE")
        self._files.create_dir(target, recursive=True)
        for file in sorted(path.iterdir(), key=lambda file: file.name == "DONE"):  # DONE comes last
            with (
                open_regular(file) as data,
                self._files.open_output_stream(f"{target}/{file.name}") as sink,
            ):
                shutil.copyfileobj(data, sink, 2**20)

    def _delete_save(self, path: str, is_complete: bool) -> None:
        if is_complete:
            self._files.delete_file(f"{path}/DONE")
        self._files.delete_dir(path)

    def _push_metrics(self, path: Path, target: str) -> None:
        if not path.exists():
            return
        self._files.create_dir(target, recursive=True)
        size = path.stat().st_size
        first = min(self._metrics_sent, size) // _PART_BYTES
        parts = range(first, -(-size // _PART_BYTES))
        with open_regular(path) as file:
            for index in parts:
                file.seek(index * _PART_BYTES)
                self._put(file, f"{target}/{index:05d}.jsonl", _PART_BYTES)
        if size < self._metrics_sent:  # a resumed training dropped rows
            for entry in self._list(target):
                if int(entry.base_name.partition(".")[0]) >= -(-size // _PART_BYTES):
                    self._files.delete_file(entry.path)
        self._metrics_sent = size

    def _put(self, file: BinaryIO, target: str, size: int = -1) -> None:
        partial = f"{target}.partial"
        with self._files.open_output_stream(partial) as sink:
            sink.write(file.read(size))
        self._files.move(partial, target)

    def _read(self, path: str) -> bytes:
        with self._opened(path) as file:
            return file.read(MAX_TEXT_BYTES)

    def _opened(self, path: str) -> Any:
        """Opens a file for reading; on a disk, only a regular one."""
        return self._files.open_input_stream(path) if self._location.is_s3 else open_regular(path)

    def _get(self, sources: list[str], target: Path) -> None:
        """Downloads several files into one, complete or not at all."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with durable.replacing(target) as partial, partial.open("wb") as sink:
            for source in sources:
                with self._opened(source) as file:
                    while data := file.read(2**20):
                        sink.write(data)
                        heartbeat.beat()

    def _get_save(self, source: str, target: Path) -> None:
        if (target / "DONE").exists():
            return
        partial = target.with_name(_FETCHING + target.name)
        shutil.rmtree(partial, ignore_errors=True)
        for entry in self._list(source):
            self._get([entry.path], partial / entry.base_name)
        partial.rename(target)

    def _fetch_checkpoint(self, source: str, name: str, folder: Path) -> checkpoint.Save | None:
        folder.mkdir(parents=True, exist_ok=True)
        self._get_save(f"{source}/{name}", folder / name)
        save = checkpoint.open_save(folder / name)
        try:
            for needed in checkpoint.needs(save):
                self._get_save(f"{source}/{needed}", folder / needed)
        except FileNotFoundError:
            pass  # `damage` reports it
        return None if checkpoint.damage(save) else save


def _is_later(save: checkpoint.Save, stored: StoredRun, root: Path) -> bool:
    """Whether a local save is at least as new as the stored run that `auto` would choose."""
    if save.path.parent.parent.resolve() == (root / stored.name).resolve():
        return save.env_steps >= stored.env_steps
    return save.path.stat().st_mtime > stored.written.timestamp()


def _env_steps(name: str) -> int:
    return int(name.partition("-")[2])
