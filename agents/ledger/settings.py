"""The ledger's settings, `ledger.toml`: checked whole at the start, with every problem named."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from identity.trust import IssuerProfile
from runtime.settings import HttpUrl, Listen, Settings, TlsFiles
from schemas.ids import Label, ProviderName

FILE = "ledger.toml"


class LedgerSettings(Settings):
    provider: ProviderName
    name: Label = "ledger"
    desk_url: HttpUrl
    desk_ca_file: Path | None = None
    root_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
    """The provider's root public key, base64url: what the card is believed under."""
    key_file: Path = Path("agent.key")
    database: str | None = None
    """A SQLAlchemy URL of a PostgreSQL database; without it SQLite in the data directory."""
    listen: Listen
    tls: TlsFiles | None = None
    issuers: tuple[IssuerProfile, ...] = ()
    """Whose accounts may answer with receipts."""
