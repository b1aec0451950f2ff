"""The controller's settings, `controller.toml`: checked whole at the start, with every problem named."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from identity.trust import IssuerProfile
from runtime.settings import HttpUrl, Listen, Settings, TlsFiles
from schemas import limits
from schemas.wire import Subject

FILE = "controller.toml"


class AccountSettings(Settings):
    """Who this controller is: its account at one identity server."""

    url: Annotated[HttpUrl, Field(max_length=300)]
    sub: Subject
    api_token_file: Path = Path("issuer.token")


class ControllerSettings(Settings):
    listen: Listen
    tls: TlsFiles | None = None
    account: AccountSettings
    issuer: IssuerProfile | None = None
    """How the account's issuer is read, where it is not read as fedci's own; workers speak under it too."""
    database_url: str | None = None
    """A SQLAlchemy URL of a PostgreSQL; without it the database is a file in the directory."""
    lease_seconds: Annotated[int, Field(ge=10, le=3600)] = limits.LEASE_SECONDS
    desk_ca_file: Path | None = None
    """A PEM file with the only CAs that desks and the issuer are to be trusted by."""

    @property
    def profile(self) -> IssuerProfile:
        return self.issuer or IssuerProfile(url=self.account.url)

    @model_validator(mode="after")
    def _same_issuer(self) -> "ControllerSettings":
        if self.issuer is not None and self.issuer.url != self.account.url:
            raise ValueError("the issuer's url must be the account's url, to the letter")
        return self


TEMPLATE = """\
# A project owner's controller. Changes here need a restart; projects, providers and secrets do not.
listen = "{listen}"                 # the API and the pages; https (tls) beyond this machine
# tls = {{ certificate = "controller.crt", key = "controller.key.pem" }}
# database_url = "postgresql+asyncpg://fedci@db.example/fedci"   # instead of controller.sqlite
# lease_seconds = 120               # a worker that says nothing for so long has lost its job
# desk_ca_file = "ca.pem"           # trust these CAs only

[account]                           # who this controller is
url = "{issuer}"
sub = "{account}"
api_token_file = "issuer.token"     # mode 0600; the account's API token at the issuer

# How that issuer's tokens are read, where it is not a fedci identity server.
# [issuer]
# url = "{issuer}"
# algorithms = ["Ed25519"]
"""
