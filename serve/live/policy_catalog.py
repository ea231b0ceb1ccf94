"""The policies that the live page can drive with: published versions, and the saves of a run."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlcar.errors import UserError
from rlcar.registry import Model, Registry, Version
from rlcar.registry.architecture import check_arrays
from rlcar.registry.exchange import imported
from rlcar.registry.from_run import content_of_run
from rlcar.storage import checkpoint
from serve.live.loaded_policy import LoadedPolicy
from serve.live.run_follower import RunFollower
from serve.policy.policy import make_policy

LIVE = "live"  # in /load_model: drive with the run's newest policy, now and in future
_VERSION_FILE = re.compile(r"versions/0*(\d{1,8})(/[a-z.]{1,40})?")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(safetensors|pkl|pickle)")
_SAVE = re.compile(r"(best|checkpoints)/step-\d{9,15}")


class PolicyCatalog:
    """Lists, loads and publishes policies; all its methods block on the disk or the registry."""

    def __init__(
        self, location: str | Path, follower: RunFollower | None, preferred: str = "champion"
    ):
        """Without a run, `first` loads the version whose alias or number is `preferred`."""
        self.registry, self.follower = Registry(location), follower
        self._preferred = preferred
        self._folder = None if "://" in str(location) else Path(location)
        self._refused: Path | None = None  # the save that could not be loaded last

    def entries(self) -> list[dict[str, Any]]:
        """Describes every version, newest first."""
        return [_entry(version) for version in self.registry.versions()]

    def saves(self) -> list[dict[str, Any]]:
        """Describes the complete saves of the followed run, newest first."""
        if self.follower is None:
            return []
        entries = [
            {
                "file": f"{kind}/{save.path.name}",
                "env_steps": save.env_steps,
                "created": save.meta.get("created"),
            }
            for kind in ("best", "checkpoints")
            for save in checkpoint.saves(self.follower.folder / kind)
        ]
        return sorted(entries, key=lambda entry: int(entry["env_steps"]), reverse=True)

    def files(self) -> list[str]:
        """Lists other model files in the registry's folder: exported versions and old pickles."""
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
            version.number
            for version in versions
            if self._preferred in (str(version.number), *version.aliases)
        ]
        return self.load(str((preferred or [versions[0].number])[0]))

    def newest(self, than: int = -1) -> LoadedPolicy | None:
        """Returns the run's newest policy, if it is newer than a number of env steps.

        Raises UserError if it cannot act here. It is tried only once, because that takes seconds
        for a policy that sees images.
        """
        save = self.follower.newest() if self.follower else None
        if save is None or save.env_steps <= than or save.path == self._refused:
            return None
        try:
            return self._load_save(save)
        except UserError:
            self._refused = save.path
            raise

    def load(self, file: str) -> LoadedPolicy:
        """Loads a version by number or alias, a file of the folder, or a save of the run.

        Raises UserError if there is no such policy, or if it is damaged.
        """
        if _SAVE.fullmatch(file) and self.follower is not None:
            return self._load_save(checkpoint.open_save(self.follower.folder / file))
        if _FILE.fullmatch(file) and self._folder is not None:
            return _load_file(self._folder / file)
        match = _VERSION_FILE.fullmatch(file)
        model = self.registry.open(match[1] if match else file)
        number = model.version.number
        return LoadedPolicy(f"version {number}", number, make_policy(model), model)

    def publish(self, loaded: LoadedPolicy, description: str) -> int:
        """Publishes a policy as a new version; returns its number."""
        metadata = loaded.model.version.metadata | {"description": description}
        return self.registry.add(loaded.model.arrays, metadata, loaded.report).number

    def _load_save(self, save: checkpoint.Save) -> LoadedPolicy:
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


def _load_file(path: Path) -> LoadedPolicy:
    arrays, metadata, report = imported(path, "")
    check_arrays(metadata, arrays, path.name)
    model = Model(Version(0, _now(), metadata, {}), arrays)
    return LoadedPolicy(path.name, None, make_policy(model), model, report)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
