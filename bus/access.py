"""How the owner of a RabbitMQ reaches it: the management API and the AMQP address, with the administrator's rights.

Holds values and builds addresses from them; it opens no connection. Only a provider's desk (through the provisioner)
and tests have such an access: tenants and agents get short-lived users of their own.

Rules: a plaintext address is accepted for loopback only; the password appears in no `repr`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote, urlsplit

from runtime.errors import OurFault

AMQP_VARIABLE = "FEDCI_AMQP_ADMIN_URL"
API_VARIABLE = "FEDCI_RABBITMQ_API_URL"


class AccessError(OurFault):
    """The environment's description of an existing RabbitMQ cannot be used; the message says what to set."""


@dataclass(frozen=True)
class AdminAccess:
    """An administrator's way into one RabbitMQ; `api_url` has neither a trailing slash nor credentials."""

    api_url: str
    user: str
    password: str = field(repr=False)
    amqp_host: str
    amqp_port: int
    amqp_tls: bool = False

    def amqp_url(self, vhost: str, user: str | None = None, password: str | None = None) -> str:
        """Address of `vhost` for `user`, the administrator unless another one is named."""
        name = quote(self.user if user is None else user, safe="")
        secret = quote(self.password if password is None else password, safe="")
        scheme = "amqps" if self.amqp_tls else "amqp"
        host = f"[{self.amqp_host}]" if ":" in self.amqp_host else self.amqp_host
        return f"{scheme}://{name}:{secret}@{host}:{self.amqp_port}/{quote(vhost, safe='')}"

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> AdminAccess | None:
        """The existing RabbitMQ that `env` names, or None when it names none.

        Raises:
            AccessError: one variable without the other, or an address that is incomplete or not protected.
        """
        amqp, api = env.get(AMQP_VARIABLE, ""), env.get(API_VARIABLE, "")
        if not amqp and not api:
            return None
        if not amqp or not api:
            present, missing = (AMQP_VARIABLE, API_VARIABLE) if amqp else (API_VARIABLE, AMQP_VARIABLE)
            raise AccessError(f"{present} is set, {missing} is not", remedy="set both, or neither for a private node")
        return cls._from_addresses(amqp, api)

    @classmethod
    def _from_addresses(cls, amqp: str, api: str) -> AdminAccess:
        bus = _address(AMQP_VARIABLE, amqp, plain="amqp", tls="amqps")
        web = _address(API_VARIABLE, api, plain="http", tls="https")
        if bus.username is None or bus.password is None:
            raise AccessError(
                "no administrator named", where=AMQP_VARIABLE, remedy="write amqp://USER:PASSWORD@HOST:PORT"
            )
        return cls(
            api_url=_without_credentials(web),
            user=unquote(bus.username),
            password=unquote(bus.password),
            amqp_host=bus.hostname or "",
            amqp_port=bus.port or (5671 if bus.scheme == "amqps" else 5672),
            amqp_tls=bus.scheme == "amqps",
        )


def _address(variable: str, text: str, *, plain: str, tls: str) -> SplitResult:
    address = urlsplit(text)
    try:
        host, _ = address.hostname, address.port
    except ValueError as error:
        raise AccessError(f"not an address: {error}", where=variable) from error
    if address.scheme not in (plain, tls) or not host:
        raise AccessError(
            f"not an {plain.upper()} address", where=variable, remedy=f"write {plain}:// or {tls}:// and a host"
        )
    if address.scheme == plain and not _is_loopback(host):
        raise AccessError("plaintext would leave this machine", where=variable, remedy=f"use {tls}:// to reach {host}")
    return address


def _without_credentials(address: SplitResult) -> str:
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path.rstrip('/')}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
