"""Errors that are the user's to mend: the CLI prints one as a sentence and exits with code 2."""

import shlex


def command(*words: object) -> str:
    """Returns a command line of `rlcar` for messages, quoted for a shell."""
    return shlex.join(["rlcar", *map(str, words)])


def reason_of(error: OSError) -> str:
    """Returns what the operating system says, without the error number and the path."""
    return error.strerror or str(error) or type(error).__name__


class UserError(Exception):
    """Says what is wrong, with which value, and what to do; never shown as a traceback."""


class ConfigError(UserError):
    """A setting that does not exist or cannot have that value."""


class CheckpointError(UserError):
    """A save that cannot be loaded: absent, torn, of another format or of another architecture."""


class StorageError(UserError):
    """Storage that is not where its address says, or that refuses."""


class NonFiniteError(UserError):
    """Training produced a NaN or an infinity."""


class RegistryError(UserError):
    """A model version that does not exist, is damaged, or cannot be written."""


class RegistryUnavailableError(RegistryError):
    """A registry's folder or object store that cannot be reached, or does not answer in time."""
