"""Errors that the user can correct: the CLI prints the message and exits with their code."""

import shlex


def command(*words: object) -> str:
    """Returns the command line `rlcar <words>` for a message, quoted for a shell."""
    return shlex.join(["rlcar", *map(str, words)])


def reason_of(error: BaseException) -> str:
    """Returns the message of an error; of an OSError without its number and path."""
    reason: str | None = getattr(error, "strerror", None)
    return reason or str(error) or type(error).__name__


class UserError(Exception):
    """An error whose message says what is wrong, with which value, and what to do."""

    exit_code = 2


class GivenUpError(UserError):
    """Jobs were tried as often as they may be; whoever starts programs again should not."""

    exit_code = 3


class ConfigError(UserError):
    """A setting does not exist or cannot have the given value."""


class CheckpointError(UserError):
    """A checkpoint cannot be loaded: it is absent, incomplete, or does not fit this program."""


class StorageError(UserError):
    """An object store or a folder cannot be reached or refuses a request."""


class NonFiniteError(UserError):
    """Training or a policy produced a NaN or an infinity."""


class RegistryError(UserError):
    """A model version does not exist, is damaged, or cannot be written."""


class MissingAliasError(RegistryError):
    """The registry can be read, and has no alias of that name."""


class RegistryUnavailableError(RegistryError):
    """The folder or object store of a registry cannot be reached or does not answer in time."""


class DatasetError(UserError):
    """A data set is incomplete, damaged, of another format, or does not fit its use."""
