"""The store's settings, `store.toml`: checked whole at the start, with every problem named."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from identity.trust import IssuerProfile
from runtime.settings import HttpUrl, Listen, Settings, TlsFiles
from schemas import limits
from schemas.ids import Label, ProviderName

FILE = "store.toml"
_BYTES = Field(ge=0, lt=2**53)


class StoreSettings(Settings):
    provider: ProviderName
    name: Label = "store"
    desk_url: HttpUrl
    desk_ca_file: Path | None = None
    root_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
    """The provider's root public key, base64url: what the card is believed under."""
    key_file: Path = Path("agent.key")
    blobs: Path = Path("blobs")
    """Where blobs lie; relative to the data directory."""
    listen: Listen
    tls: TlsFiles | None = None
    issuers: tuple[IssuerProfile, ...] = ()
    """Whose accounts may use the store, once they are tenants at the desk."""
    quota_bytes: Annotated[int, _BYTES] = 50 * limits.GIB
    blob_bytes: Annotated[int, _BYTES] = 5 * limits.GIB
    keep_free_bytes: Annotated[int, _BYTES] = 512 * limits.MIB
    keep_days: Annotated[int, Field(ge=1, le=36_500)] = 90
    tab_hours: Annotated[int, Field(ge=1, le=24 * 31)] = 25
    """No tab lasts longer, whatever its ticket says; a day's job and its grace fit."""
