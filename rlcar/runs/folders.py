"""Creates the folders of runs and finds the run or checkpoint that a command means."""

import contextlib
import glob
import itertools
import secrets
import time
from pathlib import Path

from rlcar.config import Config
from rlcar.errors import CheckpointError, UserError, command
from rlcar.runs import stage_note
from rlcar.storage import checkpoint
from rlcar.system.durable import explaining_write_errors
from rlcar.system.lease import HeldError, holder

# File systems allow 255 bytes; the rest is for what is put before or after a run's name.
_NAME_BYTES = 200


def new_run_folder(
    root: Path, name: str | None, config: Config, *, may_restart: bool = False
) -> Path:
    """Creates a folder for a new run; raises UserError if `name` is an existing run.

    Creation decides between processes that choose the same name at the same moment; a default name
    then gets a number. `may_restart` accepts a run that was killed before its first checkpoint,
    because nothing is lost.
    """
    if name is None:
        return _new_default_folder(root, config)
    require_plain_name(name)
    folder = root / name
    if _make_folder(folder):
        return folder
    why = holder(folder)
    if why:
        raise HeldError(f"{folder} already holds a run, and {why}; or choose another --name")
    if (folder / stage_note.CURRICULUM_FILE).exists():
        raise UserError(f"{folder} holds a curriculum: choose another --name")
    is_empty = checkpoint.latest(folder / "checkpoints") is None
    if (folder / "config.json").exists() and not (may_restart and is_empty):
        how = f"continue it with: {command('train', '--resume', folder)}"
        if is_empty:
            how = f"start it again with: {_again(root, name)}"
        raise UserError(f"{folder} already holds a run: {how}; or choose another --name")
    return folder


def _new_default_folder(root: Path, config: Config) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    # Hosts that share only a storage cannot see the names that others chose.
    suffix = f"-{secrets.token_hex(3)}" if config.training.storage else ""
    first = root / f"{config.preset}-seed{config.seed}-{stamp}{suffix}"
    folder = first
    for number in itertools.count(2):
        if _make_folder(folder):
            return folder
        folder = first.with_name(f"{first.name}-{number}")
    raise AssertionError("itertools.count does not end")


def _make_folder(folder: Path) -> bool:
    """Creates a folder; returns False if it exists, raises UserError if it cannot be created."""
    with explaining_write_errors(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            if folder.is_dir():
                return False
            raise
    return True


def require_plain_name(name: str) -> None:
    """Raises UserError for a `--name` that is not a plain name of a folder."""
    is_plain = Path(name).name == name and name not in ("", ".", "..") and "\0" not in name
    if not is_plain or len(name.encode()) > _NAME_BYTES:
        raise UserError(
            f"--name {name[:40]!r} is not a plain folder name of at most {_NAME_BYTES} bytes"
        )


def _again(root: Path, name: str) -> str:
    return command("train", "--resume", "auto", "--name", name, "--runs", root)


def find_save(root: Path, resume: str, name: str | None) -> checkpoint.Save | None:
    """Returns the checkpoint that `--resume` means; None if `auto` finds nothing to continue.

    Without a name `auto` never means an attempt of a curriculum. Raises UserError for a folder that
    is not a run, and CheckpointError for one without a complete checkpoint.
    """
    if resume == "auto":
        if name is not None:
            require_plain_name(name)
        for folder in newest_first(root, name):
            if name is None and stage_note.is_attempt(folder):
                continue  # its curriculum decides how it goes on
            save = checkpoint.latest(folder / "checkpoints")
            if save is not None:
                # An unattended restart cannot ask what to do about a damaged checkpoint, so it
                # falls back to the one before.
                return checkpoint.latest_sound(save.path.parent) or save
        return None
    folder = require_run(Path(resume))
    if Path(resume).resolve().parent == (folder / "best").resolve():
        raise UserError(
            f"{resume} holds only a policy: continue its run with: "
            f"{command('train', '--resume', folder)}"
        )
    if is_same_folder(Path(resume), folder):
        save = checkpoint.latest(folder / "checkpoints")
        if save is None:
            raise CheckpointError(
                f"{folder} holds no complete checkpoint yet: start it again with: "
                f"{_again(folder.parent, folder.name)}"
            )
        return save
    return checkpoint.open_save(Path(resume))


def refuse_attempt(root: Path, resume: str | None, name: str | None) -> None:
    """Raises UserError if `--resume` or `--name` means a run that belongs to a curriculum.

    A training beside the curriculum would change the policy and the statistics on which its state
    is based, perhaps while the curriculum trains in the same folder.
    """
    if resume not in (None, "auto"):
        place = Path(str(resume)).resolve()
        folders = [place, place.parent.parent]  # a run, or a checkpoint of one
    elif name is not None:
        require_plain_name(name)
        folders = [root / name]
    else:
        return
    found = [(folder, stage_note.curriculum_of(folder)) for folder in folders]
    folder, curriculum = next((pair for pair in found if pair[1]), (root, None))
    if curriculum is None:
        return
    again = command("train", "--mode", "curriculum", "--resume", from_here(curriculum))
    anew = command("train", "--from", from_here(folder))
    raise UserError(
        f"{from_here(folder)} is an attempt of the curriculum {curriculum.name}, which decides how "
        f"it goes on: continue the curriculum with: {again}; or train on from its policy in a new "
        f"run with: {anew}"
    )


def newest_first(root: Path, name: str | None = None) -> list[Path]:
    """Lists the runs below `root`, or the one of that name, the one that was written last first.

    A run was written last when its newest save was, whether in `checkpoints` or in `best`. A run
    without a save was written when it began.
    """
    pattern = "*" if name is None else glob.escape(name)
    times_s = {folder: _written_unix_s(folder) for folder in root.glob(pattern)}
    return sorted((run for run in times_s if times_s[run]), key=times_s.__getitem__, reverse=True)


def _written_unix_s(folder: Path) -> float:
    """Returns when a run was last written, as Unix time; 0 for a folder that is not a run."""
    saves = [checkpoint.latest(folder / kind) for kind in ("checkpoints", "best")]
    paths = [save.path for save in saves if save] or [folder / "run.json"]
    written_s = 0.0
    for path in paths:
        with contextlib.suppress(OSError):  # deleted meanwhile, or not a run
            written_s = max(written_s, path.stat().st_mtime)
    return written_s


def require_run(path: Path) -> Path:
    """Returns the run at `path`, or the run of the checkpoint there; otherwise raises UserError.

    The returned path ends in the run's own name, even for `.`, `runs/x/..` or a link.
    """
    place = path.resolve()
    for folder in (place, place.parent.parent):
        if (folder / "config.json").exists() and (folder / "run.json").exists():
            return folder if path.is_absolute() else from_here(folder)
    if (place / stage_note.CURRICULUM_FILE).exists():
        raise UserError(
            f"{path} is a curriculum and not a run: name one of its attempts, which lie beside it, "
            f"such as {place.name}-s1-a1; the curriculum itself is continued with --mode curriculum"
        )
    raise UserError(
        f"{path} is not a run or a checkpoint of one: config.json or run.json is missing"
    )


def is_same_folder(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same folder."""
    return one.resolve() == other.resolve()


def from_here(folder: Path) -> Path:
    """Makes an absolute path below the current folder relative to it."""
    here = Path.cwd()
    return folder.relative_to(here) if here in folder.parents else folder
