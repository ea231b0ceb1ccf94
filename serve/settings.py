"""Every knob of the policy server in one validated, immutable place."""

import ipaddress
from pathlib import Path
from typing import Self

import pydantic
from pydantic import Field

from rlcar.errors import ConfigError
from rlcar.settings.numbers import Deadline, PerTime, Size

DEFAULT_TOKENS = Path("~/.config/rlcar/tokens.json")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class ServeSettings(pydantic.BaseModel):
    """What `make_app` and `build` read; unknown names are refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # The model: which registry, which alias, how soon a moved alias is noticed. A version's number
    # in place of an alias serves that version alone.
    registry: str = "models"
    alias: str = "champion"
    poll_s: float = Field(0.5, ge=0.05, le=2.0)

    # Where it listens, and who may ask.
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    auth: bool = False
    tokens: Path = DEFAULT_TOKENS
    allow_anonymous: bool = False  # outside loopback without auth: only when asked for
    allowed_hosts: tuple[str, ...] = ()  # names beside loopback's that a browser may call us by
    allowed_origins: tuple[str, ...] = ()  # other sites whose pages may talk to us
    is_behind_tls: bool = False  # cookies are then sent over https alone
    cookie_s: float = Field(12 * 3600.0, ge=60.0, le=1e9)

    # Deadlines and bounds. A request over a bound is refused before it is parsed.
    deadline_ms: float = Field(100.0, ge=1.0, le=1000.0)
    in_flight: Size = 128
    in_flight_per_client: Size = 64  # so that no client takes all of them
    body_bytes: int = Field(4 * 1024, ge=256, le=2**30)
    act_body_bytes: int = Field(256 * 1024, ge=1024, le=2**30)
    body_timeout_s: Deadline = 5.0
    headers_bytes: int = Field(16 * 1024, ge=1024, le=2**20)
    headers_timeout_s: Deadline = 10.0
    write_timeout_s: Deadline = 10.0  # until a client reads what was sent to it
    connections: Size = 1024  # that one process serves at once
    connections_per_address: Size = 128  # enforced by HAProxy
    frames_per_s: PerTime = 500.0  # of one WebSocket, control frames included

    # The front end: HAProxy before the real-time lane.
    is_behind_haproxy: bool = False  # set by the lanes: it forwards the client's address
    front_connections: Size = 2048  # open at once, idle ones included
    trusted_proxies: tuple[str, ...] = ()  # addresses or networks whose X-Forwarded-For counts

    # Token buckets, one for each client: a token's name, or an address.
    requests_per_s: PerTime = 2000.0
    changes_per_s: PerTime = 60.0
    failed_logins_per_min: PerTime = 20.0

    # Sessions: the recurrent states of cars.
    session_cars: int = Field(16_384, ge=256, le=10_000_000)  # over all; who has most makes room
    # Limit for each owner (token or address); its least recently used sessions are dropped first.
    session_cars_per_owner: int = Field(4096, ge=256, le=10_000_000)
    session_expiry_s: Deadline = 120.0
    replay_steps: int = Field(32, ge=0, le=1024)
    socket_idle_s: Deadline = 60.0
    bad_frames: int = Field(16, ge=1, le=1_000_000)  # a socket may send so many before it is closed

    # Under Ray Serve: replicas, and how many requests at once are worth one more of them.
    min_replicas: Size = 1
    max_replicas: Size = 1
    target_ongoing_requests: float = Field(16.0, ge=0.01, le=1e6)

    @pydantic.field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Lets `--set trusted_proxies=10.0.0.0/8,192.168.1.7` name several."""
        return tuple(value.split(",")) if isinstance(value, str) else value

    @pydantic.field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any("%" in name for name in value):
            raise ValueError("a network has no zone (%)")
        return tuple(str(ipaddress.ip_network(name.strip())) for name in value)

    @pydantic.model_validator(mode="after")
    def _is_open_to_nobody_by_accident(self) -> Self:
        if not (self.is_loopback or self.auth or self.allow_anonymous):
            raise ValueError(
                f"host {self.host} can be reached from other machines, and authentication is off: "
                "turn it on (--auth, with tokens from `rlcar tokens create`), or say "
                "--allow-anonymous"
            )
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def trusts(self, address: str) -> bool:
        """Whether an address is that of a trusted proxy."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in ipaddress.ip_network(network) for network in self.trusted_proxies)

    @property
    def host_names(self) -> frozenset[str] | None:
        """The names we answer to, or None for any: against pages that rebind a name to us."""
        if self.allowed_hosts or self.is_loopback:
            return frozenset({*LOOPBACK_NAMES, self.host, *self.allowed_hosts})
        return None


def make_settings(**settings: object) -> ServeSettings:
    """Returns the settings; raises ConfigError with one sentence for what cannot be."""
    try:
        return ServeSettings.model_validate(settings)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"serve setting {name}={first['input']!r}: {message}" if name else message
        ) from error
