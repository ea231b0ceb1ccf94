"""A run that was saved at its start, and the live page on a port of this machine."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import uvicorn

from rlcar.config import EnvironmentConfig
from rlcar.config.race import RaceConfig
from rlcar.runs.run import Run
from rlcar.sim import SPEC
from rlcar.training.trainer import Trainer
from serve.live.app import live_config
from serve.live.session import LiveSession, open_live
from serve.settings import make_settings
from tests.serve.served import Server, running
from tests.support.tiny_run import make_tiny_config, tiny_agent


def save_run(folder: Path, env_steps: int = 128) -> Path:
    """Writes the run of a training that was stopped at its first step, or adds another save."""
    config = make_tiny_config()
    trainer = Trainer(config, SPEC, tiny_agent(config))
    trainer.env_steps = env_steps
    if (folder / "config.json").exists():
        trainer.save(folder / "checkpoints", {"train_seconds": 1.0, "metric": None})
        return folder
    with Run(folder, config) as run:
        trainer.save(run.checkpoints, run.meta())
        run.log(env_steps, 0)
    return folder


class Page(NamedTuple):
    """The page's server, and a client of it."""

    server: Server
    live: LiveSession
    web: httpx.Client

    @property
    def address(self) -> str:
        """The address of the server without a scheme."""
        return f"127.0.0.1:{self.server.port}"


@contextlib.contextmanager
def paged(
    registry: Path,
    run: Path | None = None,
    race: RaceConfig | None = None,
    environment: EnvironmentConfig | None = None,
    **settings: Any,
) -> Iterator[Page]:
    """Runs the page as `rlcar watch` does, until the block ends."""
    live = open_live(registry, run, race, environment=environment)
    config = live_config(live, make_settings(registry=str(registry), port=0, **settings))
    with on_a_port(live, config) as page:
        yield page


@contextlib.contextmanager
def on_a_port(live: LiveSession, config: uvicorn.Config) -> Iterator[Page]:
    """Runs uvicorn with this configuration in a thread, until the block ends."""
    with running(config) as server:
        url = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=url, timeout=30.0) as web:
            yield Page(server, live, web)
