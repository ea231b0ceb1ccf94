"""Names of hosts for OpenSSH, in a file of our own beside the user's configuration.

    ~/.ssh/rlcar_hosts    one block for each host, written by `rlcar host add`
           config         begins with `Include …/rlcar_hosts`; the rest is the user's, byte for byte

`ssh NAME`, `scp`, `rsync` and every other program that uses OpenSSH know the names as well.
"""

import ipaddress
import os
import re
from pathlib import Path
from typing import NamedTuple

from rlcar.errors import UserError
from rlcar.system.durable import explaining_write_errors, replace_durably
from rlcar.system.user_folders import account_home_folder

FILE = "rlcar_hosts"
_HEADER = (
    "# Written by rlcar host add. Adding a host again replaces its block; the others stay as they "
    "are.\n"
)
_PRIVATE = 0o600  # OpenSSH refuses a configuration that others can write
# Neither options (a leading hyphen) nor patterns, separators and line ends are names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?")
_MAX_PORT = 65_535
# OpenSSH replaces % and ${} in file names, and has no escape for a quotation mark.
_NOT_IN_PATHS = re.compile(r'["\\%\x00-\x1f\x7f]|\$\{')


class SshHost(NamedTuple):
    """A host as OpenSSH reaches it; None stands for OpenSSH's own default."""

    name: str
    address: str
    user: str | None = None
    port: int | None = None
    identity: Path | None = None

    def block(self) -> str:
        """Returns the host's lines of a configuration file."""
        lines = [f"Host {self.name}", f"  HostName {self.address}"]
        if self.user is not None:
            lines.append(f"  User {self.user}")
        if self.port is not None:
            lines.append(f"  Port {self.port}")
        if self.identity is not None:
            lines += [f'  IdentityFile "{self.identity}"', "  IdentitiesOnly yes"]
        # A tunnel to a page must notice that the laptop has been asleep or has changed its network.
        lines += ["  ServerAliveInterval 30", "  ServerAliveCountMax 4"]
        return "\n".join(lines) + "\n"


def make_host(
    name: str, address: str, port: int | None = None, identity: Path | None = None
) -> SshHost:
    """Returns a host for `user@host` or `host`; raises UserError for what OpenSSH could misread."""
    user, at, host = address.rpartition("@")
    if at and _USER.fullmatch(user) is None:
        raise UserError(
            f"--address {address!r}: {user!r} is not the name of a user: give user@host, with "
            "letters, digits, '.', '_' and '-'"
        )
    if port is not None and not 1 <= port <= _MAX_PORT:
        raise UserError(f"--port {port}: give a number from 1 to {_MAX_PORT:,}")
    return SshHost(
        checked_name(name),
        _checked_address(host),
        user or None,
        port,
        None if identity is None else _checked_identity(identity),
    )


def checked_name(name: str) -> str:
    """Returns the name of a host; raises UserError if OpenSSH could take it for something else."""
    if _NAME.fullmatch(name) is None:
        raise UserError(
            f"{name!r} is not a name for a host: use at most 63 letters, digits, '.', '_' and '-', "
            "and begin with a letter or digit"
        )
    return name


def _checked_address(host: str) -> str:
    literal = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return str(ipaddress.ip_address(literal))
    except ValueError:
        if _HOST.fullmatch(host) is None:
            raise UserError(
                f"--address: {host!r} is neither a host name nor an IP address: give user@host, "
                "and the port with --port"
            ) from None
        return host


def _checked_identity(path: Path) -> Path:
    path = path.absolute()
    if _NOT_IN_PATHS.search(str(path)):
        raise UserError(
            f"--identity {str(path)!r}: OpenSSH cannot use a path with quotation marks, "
            "backslashes, %, ${ or control characters: move the key"
        )
    if path.suffix == ".pub":
        raise UserError(f"--identity {path} is the public key: name the private one, without .pub")
    if not path.is_file():
        raise UserError(
            f"--identity {path} does not exist: make a key with ssh-keygen -t ed25519 -f {path}"
        )
    return path


def ssh_folder() -> Path:
    """Returns the folder in which OpenSSH looks for the configuration of this user."""
    home = account_home_folder()
    if home is None:
        raise UserError(
            f"user {os.getuid()} has no home folder in the list of users, so OpenSSH has no "
            "configuration file: run this as a user with an account"
        )
    return home / ".ssh"


def blocks(folder: Path) -> dict[str, str]:
    """Returns the block of each host that `add` has written, by name, in the file's order."""
    found: dict[str, str] = {}
    name = None
    for line in _read(folder / FILE).decode("utf-8", "surrogateescape").splitlines(keepends=True):
        match = re.match(r"Host (\S+)\s*$", line)
        if match:
            name = match[1]
            found[name] = ""
        if name is not None:
            found[name] += line
    return found


def add(host: SshHost, folder: Path, *, is_dry_run: bool = False) -> list[str]:
    """Adds or replaces a host; returns what changed, or would change, one phrase each."""
    config = folder / "config"
    if host.name in _names_in(_read(config)):
        raise UserError(
            f"{config} has a host {host.name} of your own: use that one (rlcar host test "
            f"{host.name}), or choose another name"
        )
    known = blocks(folder)
    changes = []
    if known.get(host.name) != host.block():
        verb = "replace" if host.name in known else "add"
        changes.append(f"{verb} the host {host.name} in {folder / FILE}")
    included, before = _included(folder), _read(config)
    if included != before:
        changes.append(f"begin {config} with a line that includes {FILE}")
    if is_dry_run or not changes:
        return changes
    with explaining_write_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # First the hosts: an Include of a file that does not exist yet does no harm, and neither does
    # a file that nothing includes.
    _write(folder / FILE, _text(known | {host.name: host.block()}))
    if included != before:
        _write(config, included)
    return changes


def remove(name: str, folder: Path, *, is_dry_run: bool = False) -> list[str]:
    """Removes a host that `add` has written; returns what changed, or would change."""
    known = blocks(folder)
    if known.pop(checked_name(name), None) is None:
        raise UserError(
            f"{folder / FILE} has no host {name}: rlcar host list shows those that it has"
        )
    if not is_dry_run:
        _write(folder / FILE, _text(known))
    return [f"remove the host {name} from {folder / FILE}"]


def _text(hosts: dict[str, str]) -> bytes:
    parts = [_HEADER, *(block.rstrip("\n") + "\n" for block in hosts.values())]
    return "\n".join(parts).encode("utf-8", "surrogateescape")


def _included(folder: Path) -> bytes:
    """Returns the user's configuration with a line that includes our file.

    The line stands before every `Host` and `Match`, below which it would count for those alone.
    """
    before = _read(folder / "config")
    # With the whole path: OpenSSH looks for a relative one in other places than this program might.
    line = f'Include "{folder / FILE}"\n'.encode()
    for own in before.splitlines(keepends=True):
        if own == line:
            return before
        if re.match(rb"(?i)[ \t]*(host|match)[ \t=]", own):
            break
    return line + before


def _names_in(config: bytes) -> set[str]:
    """Returns the names in the `Host` lines of a configuration, patterns included."""
    lines = re.findall(rb"(?im)^[ \t]*host(?:[ \t]+|[ \t]*=[ \t]*)(.*)$", config)
    return {word.strip('"') for line in lines for word in line.decode("utf-8", "replace").split()}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _write(path: Path, data: bytes) -> None:
    # A configuration that is kept elsewhere, behind a link, stays there.
    target = path.resolve()
    with explaining_write_errors(target):
        replace_durably(target, data, _PRIVATE)
