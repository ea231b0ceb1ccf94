"""What shows a training while it runs: the live page of `--page`, and the port of its metrics."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlcar.cli.train_options import Launch
from rlcar.config import Config

if TYPE_CHECKING:
    from rlcar.runs.run import Watcher


@contextlib.contextmanager
def watched(config: Config, folder: Path, launch: Launch) -> "Iterator[Sequence[Watcher]]":
    """Shows a run on the live page and exports its metrics, as far as the options ask for it.

    Gives the watchers that the training has to tell of its progress.
    """
    with contextlib.ExitStack() as stack:
        if launch.page:
            from rlcar.cli.watch import showing_page

            stack.enter_context(showing_page(folder, launch.page_port, launch.registry))
        if launch.metrics_port is None:
            yield ()
            return
        from rlcar.runs.exporter import exporting

        yield (stack.enter_context(exporting(config, folder, launch.metrics_port)),)
