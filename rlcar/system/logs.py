"""Log lines as text, or as JSON objects that name the run and the actor."""

import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

Format = Literal["text", "json"]

_FORMAT, _RUN = "RLCAR_LOG_FORMAT", "RLCAR_RUN"  # which the processes of a training inherit


class JsonFormatter(logging.Formatter):
    """Formats each record as one JSON object; `extra={"fields": {…}}` of a log call adds to it."""

    def __init__(self, run: str | None, actor: str):
        super().__init__()
        self._where = {"run": run, "actor": actor, "host": socket.gethostname()}

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record, a traceback included."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            **self._where,
            "pid": record.process,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(log_format: Format, run: str | None = None, actor: str = "driver") -> None:
    """Sets the log format of this process and of those that it passes `inherited()` to."""
    os.environ[_FORMAT] = log_format
    if run is not None:
        os.environ[_RUN] = run
    handler = logging.StreamHandler()
    if log_format == "json":
        handler.setFormatter(JsonFormatter(run, actor))
        logging.getLogger("rlcar").setLevel(logging.INFO)
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # Matplotlib prints a long warning when it cannot write to the home folder.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def inherited(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the variables that carry the format to processes on other machines."""
    environment = os.environ if environment is None else environment
    return {name: environment[name] for name in (_FORMAT, _RUN) if name in environment}


def take_over(actor: str) -> None:
    """Logs as `actor`, in the format of the process that started this one."""
    if os.environ.get(_FORMAT) == "json":
        set_up("json", os.environ.get(_RUN), actor)
        logging.getLogger(__name__).info("process started")


def announce(text: str) -> None:
    """Prints a notice, or logs it where log lines are JSON."""
    if are_json():
        logging.getLogger(__name__).info(text)
        return
    with contextlib.suppress(OSError, ValueError):  # the terminal may be closed
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def are_json() -> bool:
    """Whether the log lines of this process are JSON."""
    handlers = logging.getLogger().handlers
    return any(isinstance(handler.formatter, JsonFormatter) for handler in handlers)
