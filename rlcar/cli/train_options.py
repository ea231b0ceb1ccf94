"""The options of `rlcar train`, and which of them a resumed run needs again."""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from rlcar.cli.shared import number
from rlcar.errors import UserError, command

Preset = Annotated[
    str | None,
    typer.Option(
        help="Named settings: nano (default), nano-grand-prix, small, medium, gymnasium, "
        "fused-ppo and others."
    ),
]
Algorithm = Annotated[
    str | None,
    typer.Option(
        help="Learning algorithm (default: that of the preset); an unknown name lists all."
    ),
]
World = Annotated[
    str | None,
    typer.Option(help="World of the race: classic (default), grand-prix, or a stage grand-prix-1."),
]
Environment = Annotated[
    str | None,
    typer.Option(help="Gymnasium environment to learn in place of the race, e.g. rlcar/Catch-v0."),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Data set of recorded episodes to learn from in place of driving; it also gives the "
        "world or environment."
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        help="Kind of the training: standard, test for a tiny trial, or curriculum for stages."
    ),
]
Curriculum = Annotated[
    str | None,
    typer.Option(
        help="Curriculum of --mode curriculum: a YAML file, or the name of one that comes with "
        "rlcar, such as grand-prix."
    ),
]
Tracks = Annotated[
    str | None,
    typer.Option(
        help="CSV file, or folder of CSV files, with tracks of your own to train on, in place of "
        "drawn ones."
    ),
]
ConfigFile = Annotated[Path | None, typer.Option(help="YAML file of settings to start from.")]
Seed = Annotated[
    int | None,
    typer.Option(
        help="Seed of everything random. With --local or --deterministic, equal seeds and settings "
        "give equal runs on equal machines; otherwise timing has an influence."
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Makes two runs with equal settings equal bit for bit, also on Ray; slower.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(help="Name of the run's folder below --runs (default: preset, seed and time)."),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Run, checkpoint or version whose training goes on in a new run by driving. The "
        "learner and the newest recorded steps are taken over from that checkpoint, or from the "
        "newest checkpoint of the run.",
    ),
]
Resume = Annotated[
    str | None,
    typer.Option(
        help="Run or checkpoint to continue; auto continues the newest run, or the one with "
        "--name, and begins a new one if there is none."
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        envvar="RLCAR_STORAGE",
        help="Storage that mirrors the run: s3://bucket/prefix, file:///folder or /folder.",
    ),
]
Local = Annotated[bool, typer.Option("--local", help="Trains in one process, without Ray.")]
DebugNans = Annotated[
    bool,
    typer.Option(
        "--debug-nans", help="Stops at the operation that produces a NaN; slow, with --local only."
    ),
]
Simulators = Annotated[
    str | None,
    typer.Option(
        help="Number of simulator processes (default: one for each free core); auto follows the "
        "nodes of the cluster as they come and go."
    ),
]
Page = Annotated[
    bool, typer.Option("--page", help="Shows the run on a live page, as rlcar watch does.")
]
PagePort = Annotated[int, number(0, 65_535, help="Port of the live page of --page.")]
MetricsPort = Annotated[
    int | None,
    number(
        0,
        65_535,
        help="Port at which Prometheus finds the metrics of the training, at every address of this "
        "host; 0 takes a free one (default: no port).",
    ),
]
LogFormat = Annotated[
    str, typer.Option(help="Format of messages: text for people, or json for programs.")
]
ClusterSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster",
        help="Changes one setting of the Ray processes, e.g. simulator_cpus=0.5; repeatable.",
    ),
]
Publish = Annotated[
    bool,
    typer.Option("--publish", help="Publishes the best policy as a model version at the end."),
]


class Launch(NamedTuple):
    """The options that say how to run a training; its settings are elsewhere."""

    local: bool
    address: str | None
    simulators: str | None
    cluster_settings: list[str]  # each `name=value`
    debug_nans: bool
    publish: bool
    registry: str
    page: bool
    page_port: int
    log_format: str
    metrics_port: int | None = None

    def refuse_contradictions(self) -> None:
        """Raises UserError for options that exclude each other."""
        if self.local and (self.address or self.simulators or self.cluster_settings):
            raise UserError(
                "--local runs in one process: leave out --address, --simulators and --cluster"
            )
        if self.debug_nans and not self.local:
            raise UserError("--debug-nans looks into one process: add --local")
        if self.log_format not in ("text", "json"):
            raise UserError(f"--log-format {self.log_format!r}: there are text and json")

    def all_cluster_settings(self) -> list[str]:
        """Returns the settings of the Ray processes, those with an option of their own included."""
        own = {"address": self.address, "simulators": self.simulators}
        given = [f"{name}={value}" for name, value in own.items() if value is not None]
        return given + self.cluster_settings

    def resume_command(self, folder: Path) -> str:
        """Returns the command line that continues a run in the same way."""
        words: list[object] = ["train", "--resume", folder]
        flags = {
            "--local": self.local,
            "--debug-nans": self.debug_nans,
            "--publish": self.publish,
            "--page": self.page,
        }
        words += [flag for flag, is_given in flags.items() if is_given]
        values = {
            "--address": self.address,
            "--simulators": self.simulators,
            "--registry": self.registry if self.publish or self.page else None,
            "--page-port": self.page_port if self.page else None,
            "--metrics-port": self.metrics_port,
            "--log-format": self.log_format if self.log_format != "text" else None,
        }
        for option, value in values.items():
            words += [] if value is None else [option, value]
        for setting in self.cluster_settings:
            words += ["--cluster", setting]
        return command(*words)
