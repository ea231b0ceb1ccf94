"""Shows the log of a job on a terminal, with the progress of a training as a bar."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from rlcar.runs.metrics import read_progress_line
from rlcar.system.console import make_console


class LogView:
    """Prints a job's log; on a terminal its progress lines become one bar at the bottom."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or make_console(soft_wrap=True)
        self._rest = ""
        columns = (BarColumn(bar_width=20), TaskProgressColumn())
        text = TextColumn("ETA {task.fields[eta]}  {task.fields[text]}", markup=False)
        self._progress = Progress(*columns, text, console=self._console)
        self._task: TaskID | None = None

    def __enter__(self) -> "LogView":
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._progress.stop()
        if self._rest:
            self._console.print(self._rest, markup=False, highlight=False)

    def show(self, text: str) -> None:
        """Prints a further part of the log, of any length."""
        if not self._console.is_terminal:
            self._console.file.write(text)
            self._console.file.flush()
            return
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            progress = read_progress_line(line)
            if progress is None:
                self._console.print(line, markup=False, highlight=False)
                continue
            if self._task is None:
                self._task = self._progress.add_task("train", total=1, eta="", text="")
                self._progress.start()
            self._progress.update(
                self._task,
                completed=progress.env_steps,
                total=progress.total_env_steps,
                eta=progress.eta,
                text=progress.text,
            )
