"""`rlcar drive`: a served policy drives, or acts in another environment, over the network."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from rlcar.cli.shared import (
    RoadWidth,
    TrackScale,
    TracksOption,
    chosen_tracks,
    number,
    prepare_jax_on_cpu,
)
from rlcar.errors import UserError
from rlcar.system.console import make_console

if TYPE_CHECKING:
    from rlcar.config import EnvironmentConfig
    from serve.client.client import DriveClient

_EPISODES = 16


def drive(
    url: Annotated[str, typer.Argument(help="Address of the server, e.g. http://127.0.0.1:8000.")],
    tracks: TracksOption = None,
    world: Annotated[
        str | None, typer.Option(help="World to drive in (default: that of the served policy).")
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(
            help="Gymnasium environment to act in, e.g. Pendulum-v1 (default: that of the served "
            "policy)."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Changes one setting of the environment that --env names, e.g. "
            "environment.time_limit_steps=100.",
        ),
    ] = None,
    episodes: Annotated[
        int | None,
        number(
            1,
            256,
            help=f"Episodes of an environment, side by side (default: {_EPISODES}).",
        ),
    ] = None,
    websocket: Annotated[
        bool, typer.Option("--websocket", help="Uses WS /v1/drive in place of POST /v1/act.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(envvar="RLCAR_TOKEN", help="Access token for a server with --auth."),
    ] = None,
    timeout_ms: Annotated[
        float,
        number(
            1, 60_000, help="Milliseconds after which a car without an answer holds, then brakes."
        ),
    ] = 100.0,
    noise: Annotated[
        str | None,
        typer.Option(
            help="Standard deviation of noise that the cars add to the actions, or a range of it "
            "such as 0.1-0.4, from which each car takes a value; for recordings."
        ),
    ] = None,
    track_count: Annotated[
        int | None,
        number(1, 256, help="Number of tracks of the set, drawn with --seed (default: all)."),
    ] = None,
    seed: Annotated[
        int, number(0, 2**31 - 1, help="Seed of noise, of drawn tracks and of episodes.")
    ] = 0,
    track_scale: TrackScale = None,
    road_width: RoadWidth = None,
) -> None:
    """Lets a served policy drive unseen tracks, or act in an environment, over the network.

    Reports laps, or successes and rewards, and the latency.
    """
    prepare_jax_on_cpu()
    from rlcar.config import make_race_config
    from rlcar.datasets.behaviour import parse_noise
    from rlcar.track import set_name, set_seeds
    from serve.client.client import DriveClient
    from serve.client.closed_loop import drive_served, print_drive, trained_race
    from serve.client.episodes import trained_environment

    if set_ and env is None:
        raise UserError(f"--set {set_[0]}: it changes the environment that --env names; add --env")
    of_race = {
        "--world": world,
        "--noise": noise,
        "--track-count": track_count,
        "--tracks": tracks,
    }
    chosen = chosen_tracks(tracks, track_scale, road_width)
    race = None if world is None else make_race_config(world)
    drawn = None if noise is None else parse_noise(noise, "--noise")
    if drawn is not None and drawn.is_own:
        raise UserError("--noise explore: a served policy does not explore, so give a number")
    with DriveClient(url, websocket=websocket, token=token, timeout_ms=timeout_ms) as client:
        environment = _environment(env, set_ or []) or trained_environment(client.check())
        if environment.id:
            for option, value in of_race.items():
                if value is not None:
                    raise UserError(
                        f"{option} {value} is for the race, and the policy acts in "
                        f"{environment.id}: leave it out"
                    )
            _act(client, environment, episodes or _EPISODES, seed)
            return
        if episodes is not None:
            raise UserError(
                f"--episodes {episodes} is for another environment than the race, in which each "
                "car drives one lap: use --track-count"
            )
        race, track_set = chosen.apply(race or trained_race(client.check()), "test")
        seeds = drawn_tracks(set_seeds(track_set, race.track), track_count, seed)
        result = drive_served(client, seeds, race, noise=drawn, seed=seed)
        print_drive(result | {"track_set": set_name(track_set, race.track)}, make_console())


def drawn_tracks(seeds: Sequence[int], count: int | None, seed: int) -> Sequence[int]:
    """Returns all tracks of a set, or so many of them, chosen at random."""
    if count is None or count >= len(seeds):
        return seeds
    return sorted(random.Random(seed).sample(seeds, count))


def _environment(name: str | None, overrides: list[str]) -> "EnvironmentConfig | None":
    """Returns the environment that the options name, if any; raises ConfigError for a mistake."""
    from rlcar.config import make_config

    if name is None:
        return None
    return make_config(environment=name, overrides=overrides).environment


def _act(client: "DriveClient", environment: "EnvironmentConfig", episodes: int, seed: int) -> None:
    """Lets the policy act in episodes, and shows how many have ended meanwhile."""
    from rich.progress import Progress

    from serve.client.episodes import drive_episodes, print_episodes

    console = make_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"{episodes} episodes of {environment.id}", total=1.0)
        result = drive_episodes(
            client,
            environment,
            episodes=episodes,
            seed=seed,
            on_share=lambda share: progress.update(task, completed=share),
        )
    print_episodes(result, console)
