"""The file that says which other programs a server talks to about rollouts, with their secrets.

It is a file of the server, and not a part of a rollout's file, because whoever may begin a rollout
must not make servers send requests to arbitrary addresses.
"""

from pathlib import Path
from typing import Annotated, Any

import httpx
import pydantic
from pydantic import Field, SecretStr

from rlcar.errors import ConfigError
from rlcar.settings.explain import problems
from rlcar.settings.files import read_yaml


def _check_address(text: str) -> str:
    try:
        url = httpx.URL(text)
        is_address = url.scheme in ("http", "https") and bool(url.host) and url.port != 0
    except (httpx.InvalidURL, ValueError):  # such as a host that no name server can know
        is_address = False
    if not is_address or not text.isprintable() or " " in text or "#" in text:
        raise ValueError("an address begins with http:// or https:// and names a host")
    return text


def _check_base(text: str) -> str:
    if "?" in text:
        raise ValueError("the address ends before the question mark, as paths are added to it")
    return text


def _check_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a secret is one word of printable ASCII characters")
    return secret


Address = Annotated[str, Field(max_length=2000), pydantic.AfterValidator(_check_address)]
BaseAddress = Annotated[Address, pydantic.AfterValidator(_check_base)]
Secret = Annotated[SecretStr, pydantic.AfterValidator(_check_secret)]


class IntegrationsSection(pydantic.BaseModel):
    """A part of the file."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Webhook(IntegrationsSection):
    """Receives a POST request with JSON for every entry of the journal but measurements."""

    url: Address
    """Address of the receiver."""
    secret: Secret | None = None
    """Key of the signature in the header `X-Rlcar-Signature-256`."""


class Grafana(IntegrationsSection):
    """Gets an annotation for every entry of the journal but measurements."""

    url: BaseAddress
    """Address of Grafana, with its path prefix if it has one."""
    token: Secret
    """Token of a service account that may write annotations."""


class Prometheus(IntegrationsSection):
    """Answers the queries of analyses."""

    url: BaseAddress
    """Address of Prometheus, with its path prefix if it has one."""
    token: Secret | None = None
    """Token, if it requires one."""


class Integrations(IntegrationsSection):
    """The whole file; every part is optional."""

    webhooks: list[Webhook] = Field([], max_length=20)
    """Receivers of messages about rollouts."""
    grafana: Grafana | None = None
    """Grafana, for annotations."""
    prometheus: Prometheus | None = None
    """Prometheus, for metrics of analyses that are queries."""


def read_integrations(path: Path | None) -> Integrations:
    """Reads the file; without one there are no integrations.

    Raises ConfigError that names each wrong key.
    """
    if path is None:
        return Integrations()
    tree: Any = read_yaml(path)
    try:
        return Integrations.model_validate(tree)
    except pydantic.ValidationError as error:
        # Without the values, as any of them may be a secret.
        said = [one._replace(value={}).sentence() for one in problems(error, Integrations)]
        raise ConfigError(f"{path}: {'; '.join(said)}") from None
