"""The validated, immutable settings of the policy server."""

import ipaddress
from pathlib import Path
from typing import Self

import pydantic
from pydantic import Field

from rlcar.errors import ConfigError
from rlcar.settings.explain import problems
from rlcar.settings.numbers import Deadline, PerTime, Size

DEFAULT_TOKENS = Path("~/.config/rlcar/tokens.json")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class ServeSettings(pydantic.BaseModel):
    """The settings of `serve.app.make_app` and `build`; unknown names are refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # The model: which registry, which alias, how soon a moved alias is noticed.
    registry: str = "models"
    """Model registry: a folder, or a URL such as `s3://bucket/models`."""
    alias: str = "champion"
    """Alias whose version acts; the server follows it when it moves. The number of a version serves
    that version alone."""
    poll_s: float = Field(0.5, ge=0.05, le=2.0)
    """Time between two looks at the alias."""
    waits_for_model: bool = False
    """Whether an empty registry is expected, so that a server without a model is no failure: it
    answers with the safe action until a version is published."""

    # Where the server listens, and who may ask.
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    auth: bool = False
    """Whether every request needs a token."""
    tokens: Path = DEFAULT_TOKENS
    """File that holds the hashes of the tokens."""
    allow_anonymous: bool = False
    """Whether other machines may ask without a token. It must be set to listen outside loopback
    without `auth`."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, beside those of loopback, by which browsers may address the server."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may send requests."""
    is_behind_tls: bool = False
    """Whether a proxy in front speaks HTTPS; cookies are then sent over HTTPS alone."""
    cookie_s: float = Field(12 * 3600.0, ge=60.0, le=1e9)
    """Time for which a browser stays logged in."""

    # Deadlines and bounds. A request over a bound is refused before it is parsed.
    deadline_ms: float = Field(100.0, ge=1.0, le=1000.0)
    """Time in which a request is answered with the policy's action; after it the answer is the
    safe action. A request may ask for another deadline."""
    in_flight: Size = 128
    """Largest number of requests at once; more are refused with 429."""
    in_flight_per_client: Size = 64
    """Largest number of requests of one client at once, so that no client takes all."""
    body_bytes: int = Field(4 * 1024, ge=256, le=2**30)
    """Largest body of a request, except for those of `act_body_bytes`."""
    act_body_bytes: int = Field(256 * 1024, ge=1024, le=2**30)
    """Largest body of `/v1/act`, `/v1/outcome` and `/v1/rollout/command`, and largest message of
    `/v1/drive`."""
    body_timeout_s: Deadline = 5.0
    """Time in which the body of a request must arrive."""
    headers_bytes: int = Field(16 * 1024, ge=1024, le=2**20)
    """Largest size of all headers of a request."""
    headers_timeout_s: Deadline = 10.0
    """Time in which the headers of a request must arrive."""
    write_timeout_s: Deadline = 10.0
    """Time in which a client must read what was sent to it."""
    connections: Size = 1024
    """Largest number of connections that one process serves at once."""
    connections_per_address: Size = 128
    """Largest number of connections from one address; HAProxy enforces it."""
    frames_per_s: PerTime = 500.0
    """Largest rate of frames on one WebSocket, control frames included."""

    # The front end: HAProxy before the real-time lane.
    is_behind_haproxy: bool = False
    """Whether our HAProxy forwards requests with the client's address. The lanes set it."""
    front_connections: Size = 2048
    """Largest number of connections open at once at HAProxy, idle ones included."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose `X-Forwarded-For` header is believed."""

    # Token buckets, one for each client: a token's name, or an address.
    requests_per_s: PerTime = 2000.0
    """Largest rate of requests of one client: a token's name, or an address."""
    changes_per_s: PerTime = 60.0
    """Largest rate of requests of one client that change something."""
    failed_logins_per_min: PerTime = 20.0
    """Largest rate of failed logins of one client."""

    # Recording of sessions into data sets.
    record: Path | None = None
    """Folder into which sessions are recorded; each server writes a data set of its own below it.
    Without it nothing is recorded."""
    record_share: float = Field(1.0, gt=0.0, le=1.0)
    """Share of the sessions to record. Their names decide, so all servers choose the same ones."""
    record_limit_mb: float = Field(1000.0, ge=1.0, le=1e9)
    """Largest size on the disk of the data set that a server records, in millions of bytes. Its
    oldest episodes are deleted to make room for new ones."""
    record_name: str | None = Field(None, pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Name of this server's data set below `record`, to which its number on this machine is added.
    Without it the name is derived from that of the machine."""
    record_flush_s: float = Field(30.0, ge=0.1, le=3600.0)
    """Longest time for which a recorded episode that has ended stays in memory alone."""

    # Rollouts of new versions.
    integrations: Path | None = None
    """YAML file with the webhooks, the Grafana and the Prometheus of rollouts, and their secrets;
    see `serve.delivery.integrations`."""

    # Sessions: the recurrent states of cars.
    session_cars: int = Field(16_384, ge=256, le=10_000_000)
    """Number of cars whose recurrent states are kept over all sessions. When it is reached,
    sessions of the owner with the most cars are dropped."""
    session_cars_per_owner: int = Field(4096, ge=256, le=10_000_000)
    """Number of cars whose recurrent states are kept for each owner (token or address). Its
    least recently used sessions are dropped first."""
    session_expiry_s: Deadline = 120.0
    """Time after its last request at which a session is dropped."""
    replay_steps: int = Field(32, ge=0, le=1024)
    """Number of last observations kept for each session, from which a new version rebuilds the
    recurrent state."""
    socket_idle_s: Deadline = 60.0
    """Time without a message after which a WebSocket is closed."""
    bad_frames: int = Field(16, ge=1, le=1_000_000)
    """Number of invalid frames after which a WebSocket is closed."""

    # Ray Serve: replicas and when to add one.
    min_replicas: Size = 1
    """Smallest number of Ray Serve replicas."""
    max_replicas: Size = 1
    """Largest number of Ray Serve replicas."""
    target_ongoing_requests: float = Field(16.0, ge=0.01, le=1e6)
    """Average number of concurrent requests of a replica that Ray Serve aims at; with more it adds
    replicas, with fewer it removes some."""

    @pydantic.field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Splits the text of `--set trusted_proxies=10.0.0.0/8,192.168.1.7` at its commas."""
        return tuple(value.split(",")) if isinstance(value, str) else value

    @pydantic.field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any("%" in name for name in value):
            raise ValueError("the address of a network cannot contain a zone (%)")
        return tuple(str(ipaddress.ip_network(name.strip())) for name in value)

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.is_loopback or self.auth or self.allow_anonymous):
            raise ValueError(
                f"host {self.host} can be reached from other machines, and authentication is off: "
                "turn it on (--auth, with tokens from `rlcar tokens create`), or add "
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
        """The accepted names in the Host header, or None for any.

        The check protects against pages that rebind their own host name to this server's address.
        """
        if self.allowed_hosts or self.is_loopback:
            return frozenset({*LOOPBACK_NAMES, self.host, *self.allowed_hosts})
        return None


def make_settings(**settings: object) -> ServeSettings:
    """Returns the settings; raises ConfigError that explains the first invalid one."""
    try:
        return ServeSettings.model_validate(settings)
    except pydantic.ValidationError as error:
        first = problems(error, ServeSettings)[0]
        setting = f"serve setting {first.name}={first.value!r}: " if first.name else ""
        raise ConfigError(f"{setting}{first.reason}") from error
