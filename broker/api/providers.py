"""Routes on providers: introduced first, then added with the fingerprint that a person has compared."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from broker.api.answers import found, granted
from broker.api.projects import controller_of
from broker.presenting import provider_view
from broker.views import IntroductionView, ProviderView

router = APIRouter(prefix="/providers", tags=["providers"])
DeskUrl = Annotated[str, Field(max_length=300)]


class NewProvider(BaseModel):
    """With `fingerprint`, the provider is only added if its root key has this one."""

    model_config = ConfigDict(extra="forbid")

    url: DeskUrl
    fingerprint: Annotated[str, Field(max_length=200)] | None = None


class DeskAddress(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: DeskUrl


@router.get("")
async def list_providers(request: Request) -> list[ProviderView]:
    return [provider_view(known) for known in controller_of(request).book.all()]


@router.get("/{name}")
async def show_provider(request: Request, name: str) -> ProviderView:
    return provider_view(found(controller_of(request).book.get(name), f"provider {name}"))


@router.post("/introductions")
async def introduce(request: Request, desk: DeskAddress) -> IntroductionView:
    """Ask a desk who it is; nothing is pinned. Compare the fingerprint with what its owner tells you."""
    introduced = granted(await controller_of(request).providers.introduce(desk.url))
    return IntroductionView(
        name=introduced.card.message.provider, url=introduced.url, root_fingerprint=introduced.fingerprint
    )


@router.post("", status_code=201)
async def add_provider(request: Request, new: NewProvider) -> ProviderView:
    """Pin a provider's root key, and open a session at its bus."""
    return provider_view(granted(await controller_of(request).providers.add(new.url, new.fingerprint)))
