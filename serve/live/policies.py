"""The policies that the live page can put at the wheel: versions, and the saves of a run."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlcar.config.race import RaceConfig
from rlcar.errors import UserError
from rlcar.registry import Model, Registry, Version
from rlcar.registry.architecture import check_arrays
from rlcar.registry.exchange import imported
from rlcar.registry.from_run import content_of_run
from rlcar.storage import checkpoint
from rlcar.types import TimeStep
from serve.live.follow import RunFollower
from serve.policy.policy import NumpyPolicy, make_policy

LIVE = "live"  # what `load` calls the run's newest policy, now and from now on
_VERSION_FILE = re.compile(r"versions/0*(\d{1,8})(/[a-z.]{1,40})?")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(safetensors|pkl|pickle)")
_SAVE = re.compile(r"(best|checkpoints)/step-\d{9,15}")


class LoadedPolicy(NamedTuple):
    """A loaded policy, and what it takes to publish it."""

    label: str
    version: int | None
    policy: NumpyPolicy
    model: Model
    report: dict[str, Any] | None = None

    @property
    def race(self) -> RaceConfig:
        """The world it has learnt in."""
        return self.policy.config.race

    @property
    def env_steps(self) -> int | None:
        """After how many steps of training it was saved."""
        return self.model.version.metadata["lineage"].get("env_steps")


class StatefulPolicy:
    """A policy at the wheel of one car, which remembers what that car saw and did."""

    def __init__(self, loaded: LoadedPolicy):
        self.loaded = loaded
        self._state = loaded.policy.initial_state(1)

    def act(self, time_step: TimeStep) -> np.ndarray:
        """Returns the action `[2]`; `time_step.is_first` forgets what came before."""
        action, self._state = self.loaded.policy.act(
            self._state, time_step.observation, time_step.is_first
        )
        return action[0]

    def took(self, action: np.ndarray) -> None:
        """Notes what was really done: a person may have steered instead."""
        if self.latent is not None:  # the world model's belief: recurrent, latent, last action
            self._state = (*self._state[:2], np.asarray(action, np.float32)[None])

    def change(self, loaded: LoadedPolicy) -> None:
        """Goes on with another policy; what was seen is kept where both remember alike."""
        fresh = loaded.policy.initial_state(1)
        if [part.shape for part in fresh] != [part.shape for part in self._state]:
            self._state = fresh
        self.loaded = loaded

    @property
    def latent(self) -> np.ndarray | None:
        """The world model's latent state `[S, K]`, where there is one."""
        latent = self.loaded.policy.latent(self._state)
        return None if latent is None else latent[0]


class PolicyCatalog:
    """Lists, loads and publishes; all its methods block on the disk or the store."""

    def __init__(
        self, location: str | Path, follower: RunFollower | None, preferred: str = "champion"
    ):
        """`preferred` is the alias or number of the version that `first` takes without a run."""
        self.registry, self.follower = Registry(location), follower
        self._preferred = preferred
        self._folder = None if "://" in str(location) else Path(location)

    def entries(self) -> list[dict[str, Any]]:
        """Describes every version, newest first."""
        return [_entry(version) for version in self.registry.versions()]

    def saves(self) -> list[dict[str, Any]]:
        """Describes the complete saves of the run that is followed, newest first."""
        found = []
        for kind in ("best", "checkpoints") if self.follower else ():
            for save in checkpoint.saves(self.follower.folder / kind) if self.follower else ():
                entry = {"file": f"{kind}/{save.path.name}", "env_steps": save.env_steps}
                found.append(entry | {"created": save.meta.get("created")})
        return sorted(found, key=lambda entry: int(entry["env_steps"]), reverse=True)

    def files(self) -> list[str]:
        """Names the files of the model folder that are no versions: exported ones, old pickles."""
        if self._folder is None or not self._folder.is_dir():
            return []
        names = (path.name for path in self._folder.iterdir() if not path.is_symlink())
        return sorted(name for name in names if _FILE.fullmatch(name))

    def first(self) -> LoadedPolicy | None:
        """Returns the first policy: the run's newest, else the preferred version, else any."""
        if self.follower is not None:
            return self.newest()
        versions = self.registry.versions()
        if not versions:
            return None
        preferred = [
            one.number for one in versions if self._preferred in (str(one.number), *one.aliases)
        ]
        return self.load(str((preferred or [versions[0].number])[0]))

    def newest(self, than: int = -1) -> LoadedPolicy | None:
        """Returns the run's newest policy, if it is newer than a number of env steps."""
        save = self.follower.newest() if self.follower else None
        return self._of_save(save) if save is not None and save.env_steps > than else None

    def load(self, file: str) -> LoadedPolicy:
        """Loads a version by number or alias, a file of its folder, or a save of the run.

        Raises UserError for anything else, and for what is damaged.
        """
        if _SAVE.fullmatch(file) and self.follower is not None:
            return self._of_save(checkpoint.open_save(self.follower.folder / file))
        if _FILE.fullmatch(file) and self._folder is not None:
            return _of_file(self._folder / file)
        match = _VERSION_FILE.fullmatch(file)
        model = self.registry.open(match[1] if match else file)
        number = model.version.number
        return LoadedPolicy(f"version {number}", number, make_policy(model), model)

    def publish(self, loaded: LoadedPolicy, description: str) -> int:
        """Publishes a policy as a new version; returns its number."""
        metadata = loaded.model.version.metadata | {"description": description}
        return self.registry.add(loaded.model.arrays, metadata, loaded.report).number

    def _of_save(self, save: checkpoint.Save) -> LoadedPolicy:
        assert self.follower is not None
        arrays, metadata, report = content_of_run(save.path, "")
        model = Model(Version(0, save.meta.get("created") or _now(), metadata, {}), arrays)
        label = f"{self.follower.folder.name} at {save.env_steps:,} env steps"
        return LoadedPolicy(label, None, make_policy(model), model, report)


def open_catalog(
    registry: str | Path, run: Path | None, preferred: str = "champion"
) -> PolicyCatalog:
    """Opens a registry, which need not exist yet, and a run to follow."""
    return PolicyCatalog(registry, None if run is None else RunFollower(run), preferred)


def _of_file(path: Path) -> LoadedPolicy:
    arrays, metadata, report = imported(path, "")
    check_arrays(metadata["config"], arrays, path.name)
    model = Model(Version(0, _now(), metadata, {}), arrays)
    return LoadedPolicy(path.name, None, make_policy(model), model, report)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def first_action(loaded: LoadedPolicy, observation: list[float]) -> list[float]:
    """Asks a policy that has seen nothing before what it does at one observation.

    Raises UserError where the observation has another size.
    """
    policy = loaded.policy
    if len(observation) != policy.observation_size:
        raise UserError(
            f"observation has {len(observation)} numbers; {loaded.label} sees "
            f"{policy.observation_size}"
        )
    seen = np.array([observation], np.float32)
    action, _ = policy.act(policy.initial_state(1), seen, np.ones(1, bool))
    return [float(x) for x in action[0]]


def _entry(version: Version) -> dict[str, Any]:
    metadata = version.metadata
    lineage, laps = metadata["lineage"], metadata["laps"] or {}
    return {
        "version": version.number,
        "created": version.created,
        "aliases": list(version.aliases),
        "description": metadata["description"],
        "algorithm": metadata["algorithm"],
        "world": metadata["config"].get("world"),
        "run": lineage.get("run"),
        "env_steps": lineage.get("env_steps"),
        "parent": lineage.get("parent"),
        "lap_rate": laps.get("lap_rate"),
        "lap_time_steps": laps.get("lap_time_steps"),
    }
