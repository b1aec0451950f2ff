"""Where the controller is that a command speaks to: its data directory, or its URL and a file with its token."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from fedci.controller_client import ControllerClient, Place

T = TypeVar("T")
Where = Annotated[str, typer.Argument(metavar="WHERE", help="The controller's data directory, or its https:// URL.")]
TokenFile = Annotated[Path | None, typer.Option(help="With a URL: a file, mode 0600, with the API token.")]
CaFile = Annotated[Path | None, typer.Option(help="PEM file with the CAs to trust, instead of the public ones.")]


def ask(
    where: str, token_file: Path | None, ca_file: Path | None, question: "Callable[[ControllerClient], Awaitable[T]]"
) -> T:
    """Connect to the controller and return what it answers to the question."""
    from fedci.controller_client import connected

    place = _place(where, token_file, ca_file)

    async def put() -> T:
        async with connected(place) as client:
            return await question(client)

    return asyncio.run(put())


def _place(where: str, token_file: Path | None, ca_file: Path | None) -> "Place":
    from fedci.controller_client import place_of, remote_place

    if "://" not in where:
        return place_of(Path(where), ca_file)
    if token_file is None:
        raise typer.BadParameter("a URL needs --token-file", param_hint="WHERE")
    return remote_place(where, token_file, ca_file)
