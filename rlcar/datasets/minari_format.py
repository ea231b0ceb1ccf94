"""Converts data sets from and to Minari."""

import contextlib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
from gymnasium import spaces

from rlcar.config import EnvironmentConfig
from rlcar.datasets.dataset import Dataset
from rlcar.datasets.description import Description, World, describe
from rlcar.datasets.episode import JOIN, SOURCES, Episode, distinct
from rlcar.datasets.writer import OnTransitions, new_folder
from rlcar.errors import DatasetError, reason_of
from rlcar.types import Spec

KEY = "rlcar"  # of our description, in Minari's metadata
_HDF5_REASON = re.compile("error message = '([^']*)'")
_NOT_INSTALLED = "Minari is not installed: pip install 'rlcar[data]'"


class MinariRecording:
    """A Minari data set on disk, read one episode at a time."""

    def __init__(self, folder: Path):
        """Raises DatasetError if there is none, or its spaces are not supported."""
        self._folder = _data_folder(folder)
        self._storage = _read_storage(self._folder)
        self._metadata = self._storage.metadata
        self.episodes_count = int(self._metadata["total_episodes"])
        self.steps = int(self._metadata["total_steps"])
        self.name = str(self._metadata.get("dataset_id", folder.name))
        self._observation, self._action = (
            self._storage.observation_space,
            self._storage.action_space,
        )
        self.spec = self._spec()

    def description(self) -> Description:
        """Returns the description of the data set that was exported, or of a named world."""
        text = self._metadata.get(KEY)
        if text is not None:
            try:
                return Description.model_validate_json(text).with_parts([])
            except (pydantic.ValidationError, TypeError):
                raise DatasetError(
                    f"{self._folder}: the metadata {KEY!r} does not describe a data set: remove it"
                ) from None
        return describe(self._world(), self.spec)

    def episodes(self) -> Iterator[Episode]:
        """Yields the episodes."""
        names = range(self.episodes_count)
        metadata = self._storage.get_episode_metadata(names)
        for about, raw in zip(metadata, self._storage.get_episodes(names), strict=True):
            yield self._episode(raw, about)

    def _episode(self, raw: dict[str, Any], about: dict[str, Any]) -> Episode:
        steps = len(raw["rewards"])
        observation = np.asarray(raw["observations"])
        if isinstance(self._observation, spaces.Discrete):
            index = observation.astype(np.int64) - int(self._observation.start)
            observation = np.eye(int(self._observation.n), dtype=np.float32)[index]
        elif self.spec.image_shape is None:
            observation = observation.reshape(len(observation), -1)
        is_terminal = bool(raw["terminations"][-1]) if steps else False
        logp = (raw.get("infos") or {}).get("action_logp")
        if logp is not None:
            logp = np.asarray(logp, np.float32).reshape(-1)[:steps] + self._log_scale()
        source = str(about.get("source", "model"))
        return Episode(
            observation,
            self._to_ours(np.asarray(raw["actions"])),
            np.asarray(raw["rewards"]),
            is_terminal,
            not is_terminal,
            None if logp is None or np.isnan(logp).any() else logp,
            str(about.get("policy", "")),
            source if source in SOURCES else "model",
        )

    def _log_scale(self) -> np.float32:
        """Returns what the scaling of the actions adds to the logarithm of their density."""
        if isinstance(self._action, spaces.Discrete):
            return np.float32(0.0)
        width = self._action.high.astype(np.float64) - self._action.low.astype(np.float64)
        return np.float32(np.log(width / 2.0).sum())

    def _to_ours(self, action: np.ndarray) -> np.ndarray:
        """Returns actions in [-1, 1], or indices from 0."""
        if isinstance(self._action, spaces.Discrete):
            return (action.astype(np.int64) - int(self._action.start)).astype(np.int32)
        action = action.reshape(len(action), -1)
        low, high = (
            bound.reshape(-1).astype(np.float64) for bound in (self._action.low, self._action.high)
        )
        if (low == -1.0).all() and (high == 1.0).all():
            return action  # Unchanged, because the conversion rounds.
        return np.clip(2.0 * (action - low) / (high - low) - 1.0, -1.0, 1.0).astype(np.float32)

    def _spec(self) -> Spec:
        size = 0
        image: tuple[int, int, int] | None = None
        seen = self._observation
        if isinstance(seen, spaces.Discrete):
            size = int(seen.n)
        elif isinstance(seen, spaces.Box) and seen.dtype == np.uint8 and len(seen.shape) == 3:
            height, width, channels = map(int, seen.shape)
            image = height, width, channels
        elif isinstance(seen, spaces.Box):
            size = int(np.prod(seen.shape))
        else:
            raise DatasetError(
                f"{self.name}: the observations are a {type(seen).__name__}, which is not "
                "supported: flatten them to a Box with gymnasium.wrappers.FlattenObservation"
            )
        acts = self._action
        if isinstance(acts, spaces.Discrete):
            return Spec(size, int(acts.n), True, image)
        if not isinstance(acts, spaces.Box) or not np.issubdtype(acts.dtype, np.floating):
            raise DatasetError(
                f"{self.name}: the actions are a {type(acts).__name__}, which is not supported: "
                "use Discrete or a Box of floats"
            )
        if not (np.isfinite(acts.low).all() and np.isfinite(acts.high).all()):
            raise DatasetError(f"{self.name}: the actions have no bounds: give their space a range")
        return Spec(size, int(np.prod(acts.shape)), False, image)

    def _world(self) -> World:
        """Names the environment by its id alone, because code in the metadata must not run."""
        try:
            name = json.loads(self._metadata["env_spec"])["id"]
            return World(environment=EnvironmentConfig(id=name), name="")
        except (KeyError, TypeError, ValueError):
            return World(name=self.name)


def export_minari(
    data: Dataset,
    dataset_id: str,
    root: Path | None = None,
    on_progress: OnTransitions = lambda transitions: None,
) -> Path:
    """Writes a data set as `dataset_id` into Minari's folder, or into `root`; returns its folder.

    Actions stay in [-1, 1] and images are not compressed with losses, so that every number comes
    back.
    """
    storage_type, buffer_type, parse_id, path_of, version = _minari()
    try:
        parse_id(dataset_id)
    except (ValueError, TypeError):
        raise DatasetError(
            f"{dataset_id!r} is not an id of Minari: give one such as rlcar/classic-v0"
        ) from None
    # Absolute, because Minari joins a relative path twice.
    folder = (path_of(dataset_id) if root is None else root / dataset_id).resolve()
    observation, action = _spaces(data.description)
    done = 0
    with new_folder(folder) as temporary, _explaining_hdf5(folder):
        storage = storage_type.new(
            temporary / "data", observation, action, data_format="hdf5", jpeg_encoding=False
        )
        about = {
            "dataset_id": dataset_id,
            "minari_version": version,
            KEY: data.description.with_parts([]).model_dump_json(),
        }
        storage.update_metadata(about)
        number = 0
        for part in range(len(data.parts)):
            episodes = list(data.part_episodes(part))
            storage.update_episodes(
                _buffer(buffer_type, number + index, episode)
                for index, episode in enumerate(episodes)
            )
            storage.update_episode_metadata(
                (_drivers(episode) for episode in episodes),
                range(number, number + len(episodes)),
            )
            number += len(episodes)
            done += sum(episode.transitions for episode in episodes)
            on_progress(done)
    return folder


@contextlib.contextmanager
def _explaining_hdf5(folder: Path) -> Iterator[None]:
    """Raises DatasetError with the system's reason if HDF5 cannot write.

    HDF5 hides that reason in an error of several kinds, and in a text of many numbers.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        found = _HDF5_REASON.search(str(error))
        if found is None and not isinstance(error, OSError):
            raise
        reason = reason_of(error) if found is None else found[1]
        raise DatasetError(f"cannot write {folder}: {reason}") from error


def _drivers(episode: Episode) -> dict[str, str]:
    """Returns the names of an episode's drivers; Minari has one text of each kind for an episode.

    An episode with several sources has the last of them in the order of `SOURCES`.
    """
    sources = distinct(episode.source)
    return {
        "policy": JOIN.join(distinct(episode.policy)),
        "source": max(sources, key=SOURCES.index),
    }


def _buffer(buffer_type: Any, number: int, episode: Episode) -> Any:
    ends = np.zeros((2, episode.transitions), bool)
    ends[:, -1] = episode.is_terminal, episode.is_truncated
    logp = episode.action_logp
    # Minari has one info for each observation, of which the last precedes no action.
    infos = None if logp is None else {"action_logp": np.append(logp, np.float32(np.nan))}
    return buffer_type(
        id=number,
        observations=episode.observation,
        actions=episode.action,
        rewards=episode.reward,
        terminations=ends[0],
        truncations=ends[1],
        infos=infos,
    )


def _spaces(description: Description) -> tuple[spaces.Space, spaces.Space]:
    spec = description.spec
    if spec.image_shape is not None:
        observation: spaces.Space = spaces.Box(0, 255, spec.image_shape, np.uint8)
    else:
        low, high = (
            np.array(
                [
                    default if getattr(entry, end) is None else getattr(entry, end)
                    for entry in description.observation
                ],
                np.float32,
            )
            for end, default in (("low", -np.inf), ("high", np.inf))
        )
        observation = spaces.Box(low, high, dtype=np.float32)
    if spec.is_discrete:
        return observation, spaces.Discrete(spec.action_size)
    return observation, spaces.Box(-1.0, 1.0, (spec.action_size,), np.float32)


def _minari() -> Any:
    try:
        from minari import __version__
        from minari.data_collector import EpisodeBuffer
        from minari.dataset.minari_dataset import parse_dataset_id
        from minari.dataset.minari_storage import MinariStorage
        from minari.storage.datasets_root_dir import get_dataset_path
    except ModuleNotFoundError:
        raise DatasetError(_NOT_INSTALLED) from None
    return MinariStorage, EpisodeBuffer, parse_dataset_id, get_dataset_path, __version__


def _data_folder(folder: Path) -> Path:
    for candidate in (folder / "data", folder):
        if (candidate / "metadata.json").is_file():
            return candidate
    raise DatasetError(f"{folder} holds no data set of Minari: it has no metadata.json")


def _read_storage(folder: Path) -> Any:
    storage_type = _minari()[0]
    try:
        raw = storage_type.read_raw_metadata(folder)
        # Otherwise Minari would make the environment, which runs code that the metadata names.
        if not {"observation_space", "action_space"} <= raw.keys():
            raise DatasetError(f"{folder}/metadata.json does not describe the spaces")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return storage_type.read(folder)
    except DatasetError:
        raise
    except Exception as error:  # Minari raises anything for a damaged folder.
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise DatasetError(
            f"{folder} is not a data set of Minari that can be read: {reason}"
        ) from None
