"""Access tokens with names, scopes and expiry; one private file stores only their hashes."""

import base64
import contextlib
import datetime
import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from rlcar.errors import UserError, reason_of
from rlcar.system import durable
from rlcar.system.regular_file import read_regular
from rlcar.system.user_folders import expanded

SCOPES = ("read", "act", "drive", "admin")  # admin includes all others
REFRESH_S = 0.5  # between two looks at the file
MAX_DAYS = 36_500.0  # the longest expiry
_DAY_S = 86_400.0
_PREFIX = "rlcar"
_LOGGER = logging.getLogger(__name__)


class Token(msgspec.Struct, forbid_unknown_fields=True):
    """One token as it is stored; times are in seconds since the epoch."""

    name: str
    scopes: list[str]
    hashes: dict[str, float | None]  # SHA-256 of a secret -> when it expires; None: never
    created_s: float
    is_revoked: bool = False

    def allows(self, scope: str) -> bool:
        """Whether the token may do what needs `scope`."""
        return scope in self.scopes or "admin" in self.scopes


class _File(msgspec.Struct, forbid_unknown_fields=True):
    signing_key: str  # signs cookies; base64
    tokens: list[Token]


class TokenStore:
    """The file of tokens; a change of the file takes effect within `REFRESH_S`.

    A secret has 256 random bits, so its plain SHA-256 resists a brute-force search.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        self.path = expanded(path).absolute()
        self._clock = clock
        self._looked_s = -1.0
        self._stamp: tuple[int, int, int] | None = None
        self._logged_error = ""
        self._by_hash: dict[str, tuple[Token, float | None]] = {}
        self._file = _File("", [])

    def create(self, name: str, scopes: Sequence[str], expires_s: float | None = None) -> str:
        """Adds a token and returns its secret, which is stored nowhere.

        The token expires after `expires_s`, at most `MAX_DAYS`, or never.
        """
        if expires_s is not None and not 0.0 < expires_s <= MAX_DAYS * _DAY_S:
            raise UserError(
                f"a token cannot expire after {expires_s / _DAY_S:g} days: give more than 0 and at "
                f"most {MAX_DAYS:g}, or leave the expiry out for a token that never expires"
            )
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes:
            given = f"unknown scope {', '.join(unknown)}" if unknown else "no scope is given"
            raise UserError(f"{given}: choose from {', '.join(SCOPES)}")
        if not (name.isascii() and name.replace("-", "").isalnum() and len(name) <= 64):
            raise UserError(
                f"token name {name!r}: use 1 to 64 letters, digits and hyphens, such as car-7"
            )
        with self._changing() as file:
            if any(token.name == name for token in file.tokens):
                raise UserError(
                    f"there is already a token {name!r}: rotate it, or choose another name"
                )
            secret, digest = _new_secret(name)
            end_s = None if expires_s is None else self._clock() + expires_s
            file.tokens.append(Token(name, sorted(set(scopes)), {digest: end_s}, self._clock()))
        return secret

    def rotate(self, name: str, overlap_s: float = 3600.0) -> str:
        """Gives a token a new secret; the old secret stays valid for `overlap_s`."""
        if not 0.0 <= overlap_s <= MAX_DAYS * _DAY_S:
            raise UserError(
                f"the old secret cannot stay valid for {overlap_s / 60.0:g} minutes: give 0 to "
                f"{MAX_DAYS * _DAY_S / 60.0:.0f}"
            )
        with self._changing() as file:
            token = _find(file, name)
            now_s = self._clock()
            living = {h: end for h, end in token.hashes.items() if end is None or end > now_s}
            last_s = max((end for end in living.values() if end is not None), default=None)
            never_ends = not living or None in living.values()
            secret, digest = _new_secret(name)
            token.hashes = {
                h: min(now_s + overlap_s, end or float("inf")) for h, end in living.items()
            }
            token.hashes[digest] = None if never_ends else last_s
        return secret

    def revoke(self, name: str) -> None:
        """Revokes a token at once."""
        with self._changing() as file:
            token = _find(file, name)
            token.is_revoked, token.hashes = True, {}

    def tokens(self) -> list[Token]:
        """Returns all tokens, including the revoked ones."""
        self._refresh()
        return list(self._file.tokens)

    def check(self, secret: str) -> Token | None:
        """Returns the valid token of this secret, or None."""
        self._refresh()
        digest = hashlib.sha256(secret.encode()).hexdigest()
        # The timing of this look-up can leak at most the hash of a secret.
        found = self._by_hash.get(digest)
        if found is None or (found[1] is not None and found[1] <= self._clock()):
            return None
        return found[0]

    def sign(self, message: str) -> str:
        """Returns the signature of a message by this file's key, as URL-safe text."""
        self._refresh()
        if not self._file.signing_key:
            raise UserError(
                f"{self.path} contains no tokens yet: create one with `rlcar tokens create NAME`"
            )
        key = base64.urlsafe_b64decode(self._file.signing_key)
        return _text(hmac.digest(key, message.encode(), "sha256"))

    def make_cookie(self, token: Token, lifetime_s: float) -> str:
        """Returns a signed cookie that logs a browser in as `token`."""
        payload = f"{token.name}.{int(self._clock() + lifetime_s)}.{secrets.token_urlsafe(12)}"
        return f"{payload}.{self.sign('cookie:' + payload)}"

    def check_cookie(self, cookie: str) -> Token | None:
        """Returns the valid token of a signed cookie, or None."""
        self._refresh()
        if not self._by_hash:
            return None
        payload, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self.sign("cookie:" + payload).encode()):
            return None
        name, end_s = payload.split(".")[:2]
        if float(end_s) <= self._clock():
            return None
        for token, secret_end_s in self._by_hash.values():
            if token.name == name and (secret_end_s is None or secret_end_s > self._clock()):
                return token
        return None

    def _refresh(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < REFRESH_S and self._looked_s >= 0.0:
            return
        self._looked_s = now_s
        try:
            stat = os.stat(self.path)
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp == self._stamp:
                return
            self._take(self._read())
        except FileNotFoundError:
            self._stamp, self._file, self._by_hash = None, _File("", []), {}
            return
        except (UserError, OSError) as error:
            if self._stamp is None:
                raise
            # Known tokens stay valid: a mistake in an editor must not lock out every car.
            if str(error) != self._logged_error:
                self._logged_error = str(error)
                _LOGGER.error("%s; the tokens read before stay valid", error)
            if isinstance(error, OSError):  # it may become readable without a change of its stamp
                return
        self._stamp = stamp

    def _take(self, file: _File) -> None:
        self._file = file
        self._by_hash = {
            digest: (token, end_s)
            for token in file.tokens
            if not token.is_revoked
            for digest, end_s in token.hashes.items()
        }

    def _read(self) -> _File:
        try:
            return msgspec.json.decode(read_regular(self.path), type=_File)
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {reason_of(error)}") from error
        except msgspec.DecodeError as error:
            raise UserError(
                f"{self.path} is not a valid file of tokens ({error}): restore it, or remove it"
            ) from error

    def _beside(self, suffix: str) -> Path:
        return self.path.parent / f"{self.path.stem}.{suffix}"

    @contextlib.contextmanager
    def _changing(self) -> Iterator[_File]:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(self._beside("lock"), os.O_CREAT | os.O_RDWR, 0o600)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            file = self._read() if self.path.exists() else _File(_text(os.urandom(32)), [])
            yield file
            text = msgspec.json.format(msgspec.json.encode(file))
            durable.replace_durably(self.path, text, 0o600)
        self._looked_s = -1.0


def _new_secret(name: str) -> tuple[str, str]:
    secret = f"{_PREFIX}_{name}_{secrets.token_urlsafe(32)}"
    return secret, hashlib.sha256(secret.encode()).hexdigest()


def _find(file: _File, name: str) -> Token:
    for token in file.tokens:
        if token.name == name and not token.is_revoked:
            return token
    names = ", ".join(token.name for token in file.tokens if not token.is_revoked) or "none"
    raise UserError(f"there is no token {name!r}: the tokens are {names}")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def described(token: Token) -> tuple[str, str, str, str]:
    """Returns a token's name, scopes, creation and expiry as texts."""

    def day(time_s: float) -> str:
        try:
            when = datetime.datetime.fromtimestamp(time_s, datetime.UTC)
        except (OverflowError, ValueError, OSError):  # written by hand, or by an older version
            return f"{time_s:g} s, an invalid date"
        return when.strftime("%Y-%m-%d %H:%M UTC")

    ends = [end_s for end_s in token.hashes.values()]
    last = "revoked" if token.is_revoked else "never"
    if ends and None not in ends:
        last = day(max(end_s for end_s in ends if end_s is not None))
    return token.name, ", ".join(token.scopes), day(token.created_s), last
