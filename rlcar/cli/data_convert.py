"""`rlcar data import` and `rlcar data export`: other formats of recordings."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlcar.cli.shared import Settings, console, number, say
from rlcar.errors import ConfigError, DatasetError, UserError

if TYPE_CHECKING:
    from rlcar.datasets import Dataset
    from rlcar.datasets.d4rl import FlatRecording
    from rlcar.datasets.description import World
    from rlcar.types import Spec

_PICKLES = (".pkl", ".pickle", ".p")
_FLAT = (".npz", ".hdf5", ".h5")


def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of a Minari data set, or a file in D4RL's layout: .hdf5, .npz or .pkl."
        ),
    ],
    folder: Annotated[Path, typer.Argument(help="Folder of the data set to write.")],
    world: Annotated[
        str | None, typer.Option(help="World of the race in which it was recorded, e.g. classic.")
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(help="Gymnasium environment in which it was recorded, e.g. Pendulum-v1."),
    ] = None,
    settings: Settings = None,
    action_limit: Annotated[
        float,
        number(
            1e-9, 1e12, help="Number by which the actions are divided, so that 1 is the largest."
        ),
    ] = 1.0,
) -> None:
    """Converts a recording of another format into a new data set.

    A pickle is read in a process without any rights, in which no code of it can run.
    """
    from rlcar.cli.data_progress import TransitionProgress
    from rlcar.datasets.importing import description_of, import_recording
    from rlcar.datasets.minari_format import MinariRecording

    given, known = _world(world, env, settings or [])
    if source.is_dir():
        recording = MinariRecording(source)
        _require_sizes(source, recording.spec, known, env)
        description = (
            recording.description() if given is None else description_of(recording.spec, given)
        )
        with TransitionProgress("importing", recording.steps) as progress:
            say_written(import_recording(recording, folder, description, source, progress.update))
        return
    with _flat(source, action_limit) as flat:
        from rlcar.datasets.description import World

        if known is not None and known.is_discrete:
            flat.discrete_actions = known.action_size
        _require_sizes(source, flat.spec, known, env)
        name = World(name=source.stem)
        description = description_of(flat.spec, name if given is None else given)
        with TransitionProgress("importing", flat.steps) as progress:
            say_written(import_recording(flat, folder, description, source, progress.update))


def export(
    folder: Annotated[Path, typer.Argument(help="Folder of a data set.")],
    dataset_id: Annotated[
        str, typer.Argument(help="Id of the Minari data set to write, e.g. rlcar/classic-v0.")
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of all Minari data sets (default: Minari's own, MINARI_DATASETS_PATH)."
        ),
    ] = None,
) -> None:
    """Writes a data set in Minari's format, with every number as it is."""
    from rlcar.cli.data_progress import TransitionProgress
    from rlcar.datasets import Dataset
    from rlcar.datasets.minari_format import export_minari

    data = Dataset.open(folder)
    with TransitionProgress("exporting", data.transitions) as progress:
        written = export_minari(data, dataset_id, root, progress.update)
    console.print(f"written: {written}", highlight=False, markup=False)


def say_written(data: "Dataset") -> None:
    """Prints the size of a data set that was written."""
    console.print(
        f"written: {data.episodes:,} episodes with {data.transitions:,} transitions in "
        f"{data.folder}",
        highlight=False,
        markup=False,
    )


def _world(
    world: str | None, env: str | None, settings: list[str]
) -> "tuple[World | None, Spec | None]":
    """Returns the world that the options name, and its sizes if it can be made here."""
    if world is None and env is None and not settings:
        return None, None
    from rlcar.cli.behaviours import choose_world
    from rlcar.datasets.description import World
    from rlcar.evaluation.environment import spec_of

    config = choose_world([], world, env, settings)
    try:
        return World.of_config(config), spec_of(config)
    except ConfigError:
        say(f"{env} cannot be made here: its sizes are those of the recording")
        return World.of_config(config), None


def _require_sizes(source: Path, found: "Spec", known: "Spec | None", env: str | None) -> None:
    from rlcar.datasets.description import sizes

    if known not in (None, found):
        raise DatasetError(
            f"{source} has {sizes(found)}, but {env or 'the race'} has {sizes(known)}: name the "
            "environment of the recording"
        )


@contextlib.contextmanager
def _flat(source: Path, action_limit: float) -> "Iterator[FlatRecording]":
    from rlcar.datasets.d4rl import FlatRecording, joined, open_flat

    if not source.exists():
        raise DatasetError(f"{source} does not exist: name a file or a folder")
    if source.suffix in _PICKLES:
        from rlcar.registry.pickled import read_recording

        arrays = read_recording(source)
        flat = arrays if isinstance(arrays, dict) else joined(arrays, str(source))
        yield FlatRecording(flat, str(source), action_limit)
        return
    if source.suffix not in _FLAT:
        raise UserError(
            f"{source} ends in {source.suffix or 'no suffix'}: it must be the folder of a Minari "
            f"data set or end in {', '.join((*_FLAT, *_PICKLES))}"
        )
    with open_flat(source, action_limit) as recording:
        yield recording
