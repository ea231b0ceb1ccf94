"""Commands about a campaign on another host, through the system's SSH client."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from rlcar.errors import UserError
from rlcar.system.ssh import connection

_COMMAND_NOT_FOUND = 127

Host = Annotated[
    str | None,
    typer.Option(
        help="Host on which the campaign runs, as ssh knows it: HOST, USER@HOST or a name of "
        "~/.ssh/config. --runs is then a folder of that host."
    ),
]
RemoteProgram = Annotated[
    str, typer.Option(help="Program rlcar on that host, such as /opt/rlcar/current/bin/rlcar.")
]


def on_host(host: str, program: str, words: Sequence[str], *, is_live: bool = False) -> NoReturn:
    """Runs `rlcar campaign WORDS` on a host and exits with its exit code.

    Raises UserError if there is no SSH client or the host refuses. SSH asks no questions, so the
    host's key and ours must be known.
    """
    if not host or host.startswith("-"):
        raise UserError(f"--host {host!r} is not the name of a host")
    ssh = shutil.which("ssh")
    if ssh is None:
        raise UserError(f"--host needs the program ssh: {connection.INSTALL}")
    # The shell of the host splits the last argument, so each word is quoted for it.
    remote = shlex.join([program, "campaign", *words])
    options = [*connection.OPTIONS, *(["-t"] if is_live and sys.stdout.isatty() else [])]
    sys.stdout.flush()
    done = subprocess.run(
        [ssh, *options, "--", host, remote], stderr=subprocess.PIPE, check=False, text=True
    )
    if done.returncode == connection.SSH_FAILED:
        raise UserError(connection.diagnose(host))
    if done.returncode == _COMMAND_NOT_FOUND:
        raise UserError(
            f"{host} has no program {program}: name it with --remote-program, such as "
            "/opt/rlcar/current/bin/rlcar"
        )
    sys.stderr.write(done.stderr)
    sys.exit(done.returncode)
