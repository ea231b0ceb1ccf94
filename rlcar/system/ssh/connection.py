"""Connects to a host over OpenSSH; a connection that fails is explained in one sentence."""

import re
import subprocess
import time
from typing import NamedTuple

from rlcar.errors import UserError
from rlcar.system.ssh.hosts import checked_name

CONNECT_WITHIN_S = 10.0
_ANSWER_WITHIN_S = 20.0  # after the connection
SSH_FAILED = 255  # exit code of ssh when ssh itself failed
INSTALL = "apt-get install openssh-client"
# BatchMode: where a person would be asked, for a password or about an unknown key, ssh fails and
# says so.
OPTIONS = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_WITHIN_S:.0f}")

# What a production host needs; each line is `name=value`. `true` at the end: a host without a card
# or without tmux is no failure.
_LOOK = """
echo system=$(uname -sr)
echo cores=$(nproc)
echo memory_kb=$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)
echo tmux=$(tmux -V)
echo cards=$(nvidia-smi --query-gpu=name --format=csv,noheader | paste -sd ,)
true
"""
_KB_PER_GB = 1e6


class RemoteHost(NamedTuple):
    """What a host says about itself; an empty string stands for what it lacks."""

    connected_after_s: float
    system: str
    cores: str
    memory_gb: float | None
    tmux: str
    cards: str


def look_at(name: str) -> RemoteHost:
    """Connects to a host and asks what it has; raises UserError with the reason if it cannot."""
    started_s = time.monotonic()
    output = run_on(name, _LOOK)
    found = dict(line.partition("=")[::2] for line in output.splitlines() if "=" in line)
    memory_kb = found.get("memory_kb", "")
    return RemoteHost(
        time.monotonic() - started_s,
        found.get("system", ""),
        found.get("cores", ""),
        float(memory_kb) / _KB_PER_GB if memory_kb.isdecimal() else None,
        found.get("tmux", ""),
        found.get("cards", ""),
    )


def run_on(name: str, script: str) -> str:
    """Runs a shell script on a host; returns its output. Never asks and never accepts a new key."""
    done = _run_verbosely(checked_name(name), script)
    if done.returncode:
        raise UserError(explain(name, done.stderr))
    return done.stdout


def diagnose(destination: str) -> str:
    """Returns one sentence for why ssh has just failed, from a second, verbose attempt.

    `destination` is what ssh takes: `HOST` or `USER@HOST`, without a leading hyphen. Raises
    UserError as `run_on` does.
    """
    again = _run_verbosely(destination, "true")
    if again.returncode == 0:
        return f"the connection to {destination} was lost: repeat the command"
    return explain(destination, again.stderr)


def _run_verbosely(destination: str, script: str) -> "subprocess.CompletedProcess[str]":
    # Verbose: the reason of a failure is among what ssh says.
    command = ["ssh", "-v", "-T", *OPTIONS, "-o", "ClearAllForwardings=yes"]
    command += ["--", destination, "sh", "-s"]
    try:
        return subprocess.run(
            command,
            input=script,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=CONNECT_WITHIN_S + _ANSWER_WITHIN_S,
        )
    except FileNotFoundError as error:
        raise UserError(f"there is no program ssh on this machine: {INSTALL}") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{destination} is connected and does not answer within {_ANSWER_WITHIN_S:.0f} s: look "
            "at its load, or at its shell's start-up files"
        ) from error


def explain(name: str, said: str) -> str:
    """Returns one sentence for what `ssh -v` has said about a connection that failed."""
    place = _place(name, said)
    fingerprint = _search(r"^debug1: Server host key: (\S+ \S+)", said) or "unknown"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        forget = _search(r"^\s*(ssh-keygen -f .*)$", said) or f"ssh-keygen -R {name}"
        return (
            f"the key of {place} has changed (now {fingerprint}): somebody may intercept the "
            "connection. Ask who runs the host; only if it was installed anew, forget the old key "
            f"with: {forget}"
        )
    if "Host key verification failed" in said:
        return (
            f"the key of {place} is not known yet ({fingerprint}): compare it with the one that "
            "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub prints on the host, then run "
            f"ssh {name} once and answer yes"
        )
    for sign, sentence in _REASONS:
        reason = _search(rf"^(?!debug\d)(.*{sign}.*)$", said)
        if reason is not None:
            return sentence.format(place=place, name=name, reason=reason.strip())
    own = [line for line in said.splitlines() if line and not line.startswith("debug")]
    return f"ssh cannot run a command on {place}: {own[-1].strip() if own else 'no reason given'}"


_REASONS = (
    (
        "Connection refused",
        "{place} refuses SSH: start its SSH server (systemctl start ssh), or correct the address "
        "and --port",
    ),
    (
        "(?:Connection|Operation) timed out",
        "{place} does not answer within 10 s: correct the address, start the host, or open its "
        "firewall for this port",
    ),
    (
        "Could not resolve hostname",
        "the address of {name} is not known ({reason}): correct it with rlcar host add",
    ),
    (
        "(?:No route to host|Network is unreachable|Host is down)",
        "{place} cannot be reached ({reason}): check the network or the VPN",
    ),
    (
        "UNPROTECTED PRIVATE KEY FILE",
        "ssh does not use a private key that others can read: chmod 600 the file of --identity",
    ),
    ("Bad owner or permissions", "{reason}: chmod 600 that file"),
    ("Bad configuration option|bad configuration options", "{reason}: correct ~/.ssh/config"),
    (
        "Too many authentication failures",
        "{place} was offered too many keys: name the right one with rlcar host add --identity",
    ),
    (
        "Permission denied",
        "{place} accepts none of this machine's keys: add the public key to the host "
        "(ssh-copy-id {name}), or name another one with rlcar host add --identity",
    ),
)


def _place(name: str, said: str) -> str:
    user = _search(r"^debug1: Authenticating to .* as '(.*)'", said)
    address = re.search(r"^debug1: Connecting to (\S+) (?:\[\S+\] )?port (\d+)", said, re.MULTILINE)
    if address is None:
        return name
    return f"{name} ({user + '@' if user else ''}{address[1]}, port {address[2]})"


def _search(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return None if match is None else match[1]
