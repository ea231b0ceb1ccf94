"""Why the process of a job ended, and what that means for another try."""

from typing import Any, Literal, NamedTuple, get_args

FailureClass = Literal[
    "configuration", "memory", "killed", "nan", "device", "unavailable", "frozen", "unknown"
]
FAILURE_CLASSES: tuple[FailureClass, ...] = get_args(FailureClass)

_SIGNAL_KILL = 9
_EXIT_USER_ERROR = 2
_EXIT_STOPPED = 130  # after SIGTERM or Ctrl-C, with a checkpoint
_SHELL_SIGNAL_BASE = 128  # exit codes of a shell whose program was ended by a signal

# Names of exceptions, the first that matches counts. Libraries raise the others.
_BY_TYPE: tuple[tuple[FailureClass, frozenset[str]], ...] = (
    ("nan", frozenset({"NonFiniteError", "FloatingPointError"})),
    ("memory", frozenset({"MemoryError", "OutOfMemoryError"})),
    (
        "unavailable",
        frozenset(
            {
                *("HeldError", "StorageError", "RegistryUnavailableError"),
                *("OSError", "ConnectionError", "TimeoutError", "RayActorError", "RaySystemError"),
            }
        ),
    ),
    ("configuration", frozenset({"UserError"})),
)
# Parts of the messages of JAX, CUDA and Ray, in lower case.
_BY_TEXT: tuple[tuple[FailureClass, tuple[str, ...]], ...] = (
    ("memory", ("resource_exhausted", "out of memory", "cuda_error_out_of_memory")),
    (
        "device",
        (
            *("cuda_error", "no cuda-capable device", "gpu is lost", "device unavailable"),
            *("fallen off the bus", "unable to initialize backend 'cuda'", "nvml", "cudnn_status"),
        ),
    ),
)


class Limit(NamedTuple):
    """How a class of failures is answered."""

    retries: int
    backoff_s: float  # before the first retry; it doubles


class Ending(NamedTuple):
    """What is known about a process that has ended without completing its job."""

    code: int | None  # exit code, negative for a signal; None for a process of an earlier campaign
    error: dict[str, Any]  # from `rlcar.system.error_file`; empty without one
    last_line: str = ""  # of its log
    is_on_cluster: bool = False
    has_oom_kill: bool = False  # the kernel killed some process for its memory meanwhile


class Failure(NamedTuple):
    """One failure of a job."""

    kind: FailureClass
    reason: str  # one sentence or less


def classify(ending: Ending) -> Failure:
    """Says why a process ended; the reason is the sentence of its error, if it left one."""
    if ending.error:
        return _classify_error(ending)
    code = ending.code
    if code is not None and code > _SHELL_SIGNAL_BASE and code != _EXIT_STOPPED:
        code = _SHELL_SIGNAL_BASE - code
    if code == _EXIT_STOPPED:
        return Failure("killed", "stopped from outside the campaign, with a checkpoint")
    if code is None:
        return Failure("killed", "its process ended without an error")
    if code < 0:
        if -code == _SIGNAL_KILL and ending.has_oom_kill:
            return Failure("memory", "killed by the kernel, which had run out of memory")
        return Failure("killed", f"killed by signal {-code}")
    by_text = _class_of_text(ending.last_line)
    if code == _EXIT_USER_ERROR and by_text is None:
        sentence = ending.last_line.removeprefix("error: ") or f"exit code {code}"
        return Failure("configuration", sentence)
    last = f": {ending.last_line}" if ending.last_line else ""
    return Failure(by_text or "unknown", f"exit code {code}{last}")


def _classify_error(ending: Ending) -> Failure:
    sentence = str(ending.error.get("sentence", ""))
    names = {str(name) for name in ending.error.get("types", ())}
    kind = next((kind for kind, known in _BY_TYPE if names & known), None)
    if kind is None:
        return Failure(_class_of_text(sentence) or "unknown", sentence)
    # A cluster that cannot be reached is no mistake of the settings.
    is_cluster = ending.is_on_cluster and "ConfigError" not in names
    if kind == "configuration" and is_cluster:
        return Failure("unavailable", sentence)
    return Failure(kind, sentence)


def _class_of_text(text: str) -> FailureClass | None:
    lowered = text.lower()
    return next((kind for kind, parts in _BY_TEXT if any(part in lowered for part in parts)), None)


def default_limit(kind: FailureClass, retries: int, backoff_s: float) -> Limit:
    """Returns the limit of a class; `retries` and `backoff_s` are those of the campaign's file.

    A mistake in the settings is repeated by every retry. A NaN comes again from the same checkpoint
    unless the training was unlucky. Memory, devices and servers need time to recover.
    """
    if kind == "configuration":
        return Limit(0, 0.0)
    if kind == "nan":
        return Limit(min(1, retries), backoff_s)
    if kind in ("memory", "device", "unavailable"):
        return Limit(retries, 3.0 * backoff_s)
    return Limit(retries, backoff_s)
