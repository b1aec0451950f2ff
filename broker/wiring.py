"""Puts a controller together: settings, keys, database, trust, the services, and the HTTP face.

The directory holds `controller.toml`, `controller.key`, `vault.key`, `api.token`, `issuer.token`, `controller.sqlite`,
`logs/` and `snapshots/`.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry
from starlette.routing import BaseRoute

from broker import setup
from broker.api.access import Access
from broker.api.app import behind_guards, build_app
from broker.controller import Controller, Parts
from broker.measures import ControllerMeasures
from broker.pages.web import Pages
from broker.settings import FILE, ControllerSettings
from broker.vault import Vault
from broker.voice import Voice
from identity.account import Account, read_api_token
from identity.keys import SigningKey
from identity.speech import Speaker
from identity.trust import Trust
from runtime.clock import SystemClock
from runtime.database import Database
from runtime.http_client import open_client
from runtime.http_probes import probe_routes
from runtime.http_server import serve_http
from runtime.lifecycle import Stop, announce_ready
from runtime.listening import bind
from runtime.migrations import upgrade
from runtime.settings import TlsFiles, load
from schemas.statements import StoreOffer

ROLE = "controller"


async def serve(directory: Path, stop: Stop) -> None:
    """Run the controller until `stop` drains and every request is answered.

    Raises OurFault (also as SettingsError or CannotListen) when a person must act first. Stopping loses nothing:
    granted jobs go on at their workers, and what they report waits at the bus.
    """
    settings = load(directory / FILE, ControllerSettings)
    bound = bind(settings.listen, _tls(directory, settings))
    async with AsyncExitStack() as stack:
        controller = await _build(stack, directory, settings)
        access = Access(setup.read_api_token(directory))
        app = behind_guards(build_app(controller, access, [*_probes(controller), *Pages(controller, access).routes()]))
        await controller.prepare()
        await controller.parts.trust.prime()
        async with asyncio.TaskGroup() as tasks:
            services = tasks.create_task(controller.run())
            await serve_http(app, bound, stop, ready=lambda url: announce_ready(directory, ROLE, {"http": url}))
            services.cancel()


def _probes(controller: Controller) -> Sequence[BaseRoute]:
    registry = CollectorRegistry()
    registry.register(ControllerMeasures(controller))
    return probe_routes({"issuer": lambda: _issuer_trouble(controller)}, registry)


async def _issuer_trouble(controller: Controller) -> str | None:
    return controller.parts.trust.troubles().get(controller.voice.issuer)


async def _build(stack: AsyncExitStack, directory: Path, settings: ControllerSettings) -> Controller:
    clock = SystemClock()
    target = setup.database_of(directory, settings)
    await upgrade(target, setup.MIGRATIONS)
    database = Database.open(target)
    stack.push_async_callback(database.close)
    ca_file = settings.desk_ca_file
    client = await stack.enter_async_context(open_client(directory / ca_file if ca_file else None))
    key = SigningKey.load(directory / setup.KEY)
    account = Account(
        issuer=settings.account.url,
        sub=settings.account.sub,
        api_token=read_api_token(directory / settings.account.api_token_file),
        key=key,
        client=client,
        clock=clock,
    )
    speaker = Speaker([account], key=key, clock=clock)
    parts = Parts(
        directory=directory,
        database=database,
        voice=Voice(speaker, issuer=account.issuer, sub=account.sub, key=key.public, clock=clock),
        key=key,
        trust=Trust([settings.profile], client=client, clock=clock),
        vault=Vault.load(directory / setup.VAULT_KEY),
        client=client,
        open_store_client=_store_client,
        clock=clock,
        lease_seconds=settings.lease_seconds,
    )
    controller = Controller(parts)
    stack.push_async_callback(controller.stores.close)
    return controller


def _store_client(offer: StoreOffer) -> httpx.AsyncClient:
    """A client that trusts the CA in the store's offer, which its provider's root signed, or else the public ones."""
    return open_client(ca_of_peer=offer.ca)


def _tls(directory: Path, settings: ControllerSettings) -> TlsFiles | None:
    tls = settings.tls
    return tls and TlsFiles(certificate=directory / tls.certificate, key=directory / tls.key)
