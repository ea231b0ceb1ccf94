"""What stands for `<!-- generated: NAME -->` in a page."""

import re
from collections.abc import Callable, Mapping

from docs._generate import alerts, commands, metrics, presets, routes, settings, variables

MARKER = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)


def training_settings() -> str:
    """The settings of a training, without the race."""
    from rlcar.config import Config

    return settings.render(Config, without=("race",))


def race_settings() -> str:
    """The settings of the racing world."""
    from rlcar.config.race import RaceConfig

    return settings.render(RaceConfig, "race")


def cluster_settings() -> str:
    """The settings of a training on Ray."""
    from cluster.config import ClusterConfig

    return settings.render(ClusterConfig, page="cluster")


def server_settings() -> str:
    """The settings of the policy server."""
    from serve.settings import ServeSettings

    return settings.render(ServeSettings, page="server")


def sweep_settings() -> str:
    """The file of a sweep, with its schedulers and the dimensions of its space."""
    from cluster.sweeps.config import AshaScheduler, NoScheduler, PbtScheduler, SweepConfig
    from cluster.sweeps.search_space import Dimension

    text = settings.render(SweepConfig, page="sweep", without=("cluster",))
    for model, name in ((NoScheduler, "none"), (AshaScheduler, "asha"), (PbtScheduler, "pbt")):
        text += settings.render(model, f"scheduler (type: {name})", page="sweep")
    return text + settings.render(Dimension, "space.NAME", page="sweep")


def campaign_settings() -> str:
    """The file of a campaign."""
    from rlcar.campaigns.config import Campaign, Job

    text = settings.render(Campaign, page="campaign")
    return text + settings.render(Job, "jobs[]", page="campaign")


def curriculum_settings() -> str:
    """The file of a curriculum."""
    from rlcar.training.curriculum.settings import Base, Curriculum, Stage

    text = settings.render(Curriculum, page="curriculum", without=("base",))
    text += settings.render(Base, "base", page="curriculum")
    return text + settings.render(Stage, "stages[]", page="curriculum")


GENERATED: Mapping[str, Callable[[], str]] = {
    "training-settings": training_settings,
    "race-settings": race_settings,
    "cluster-settings": cluster_settings,
    "server-settings": server_settings,
    "sweep-settings": sweep_settings,
    "campaign-settings": campaign_settings,
    "curriculum-settings": curriculum_settings,
    "presets": presets.render,
    "commands": commands.render,
    "environment-variables": variables.render,
    "training-metrics": metrics.render_training,
    "exported-metrics": metrics.render_exported,
    "observed-metrics": metrics.render_observed,
    "server-metrics": metrics.render_server,
    "routes": routes.render,
    "alerts": alerts.render,
}


def expand(text: str) -> str:
    """Returns a page with its markers replaced; raises KeyError for an unknown name."""
    return MARKER.sub(lambda found: GENERATED[found[1]](), text)
