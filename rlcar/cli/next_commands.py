"""The commands that `rlcar train` recommends at its end."""

from pathlib import Path

from rlcar.cli.shared import MODELS
from rlcar.errors import command


def next_commands(
    folder: Path,
    registry: str,
    version: int | None,
    *,
    is_race: bool,
    has_environment: bool = True,
    can_film: bool = False,
) -> str:
    """Returns a list of commands to try with a trained run, each with what it does.

    `version` is the run's model version if it was published. A policy of another environment than
    the race can be neither watched nor served; without an environment it can only be estimated.
    """
    where = [] if registry == MODELS else ["--registry", registry]
    lines = []
    if is_race:
        lines.append(("watch the car drive", command("watch", folder, *where)))
        lines.append(("drive other tracks", command("evaluate", folder, "--tracks", "circuits")))
    elif has_environment:
        lines.append(("evaluate it again", command("evaluate", folder)))
        if can_film:
            lines.append(("film an episode", command("render", folder, "--out", "episode.gif")))
    else:
        other = command("ope", folder, "--data", "data/other")
        lines.append(("estimate it from other episodes", other))
    if version is None:
        lines.append(("publish the policy", command("models", "publish", folder, *where)))
    if is_race and version is None:
        lines.append(("publish and serve it", command("serve", folder, *where)))
    elif is_race:
        promote = command("models", "promote", str(version), *where)
        lines.append(("make it the champion", promote))
        lines.append(("serve it", command("serve", "--alias", str(version), *where)))
    width = max(len(purpose) for purpose, _ in lines)
    return "\n".join(["next:", *(f"  {purpose:{width}}  {words}" for purpose, words in lines)])
