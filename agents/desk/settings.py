"""The desk's settings, `desk.toml`: checked whole at the start, with every problem named."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from agents.desk.policy import IssuerPolicy, Welcome
from identity.trust import IssuerProfile
from runtime.settings import HttpUrl, Listen, Settings, TlsFiles
from schemas import limits
from schemas.ids import Label, ProviderName
from schemas.statements import Currency, Meter
from schemas.wire import Subject

FILE = "desk.toml"


class BusSettings(Settings):
    """The RabbitMQ of this provider: where tenants and agents connect, and the desk's way in as administrator."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    tls: bool = False
    ca_file: Path | None = None
    vhost: Annotated[str, Field(min_length=1, max_length=200)]
    api_url: HttpUrl
    admin_user: str
    admin_password_file: Path = Path("bus.password")


class AccountSettings(Settings):
    """The desk's own account at an issuer, under which it signs refusals to controllers."""

    url: HttpUrl
    sub: Subject
    api_token_file: Path


class IssuerSettings(IssuerProfile):
    """An identity server whose accounts may become tenants: how it is believed, and how they are welcomed."""

    welcome: Welcome = Welcome.HOLD
    tenants: Annotated[int, Field(ge=0, le=100_000)] = 100

    @property
    def policy(self) -> IssuerPolicy:
        return IssuerPolicy(self.welcome, self.tenants)


class RateSettings(Settings):
    """The price of one meter; numbers are written as text, so that they stay exact."""

    meter: Meter
    unit: str
    price: Decimal
    per: Decimal = Decimal(1)
    increment: Decimal = Decimal(1)


class SessionSettings(Settings):
    seconds: Annotated[int, Field(ge=30, le=limits.ID_TOKEN_MAX_SECONDS)] = 3600
    connections: Annotated[int, Field(ge=2, le=64)] = 8
    channels: Annotated[int, Field(ge=4, le=2048)] = 128
    idle_days: Annotated[int, Field(ge=1)] = 30


class DeskSettings(Settings):
    provider: ProviderName
    listen: Listen
    url: HttpUrl
    tls: TlsFiles | None = None
    name: Label = "desk"
    bus: BusSettings
    sessions: SessionSettings = SessionSettings()
    issuers: tuple[IssuerSettings, ...] = ()
    accounts: tuple[AccountSettings, ...] = ()
    store_url: HttpUrl | None = None
    store_ca_file: Path | None = None
    currency: Currency = "EUR"
    decimals: Annotated[int, Field(ge=0, le=6)] = 2
    """To how many places of the currency an invoice line is rounded."""
    rates: tuple[RateSettings, ...] = ()

    @model_validator(mode="after")
    def _each_issuer_once(self) -> "DeskSettings":
        urls = [issuer.url for issuer in self.issuers]
        if len(set(urls)) != len(urls):
            raise ValueError("an issuer is listed twice")
        return self
