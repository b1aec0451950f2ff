"""What to look at while a demo is kept running: addresses of pages, and lines to type."""

from collections.abc import Iterator

from broker import setup as controller_setup
from fedci.federation.cast import CUSTOMERS, PROVIDERS
from fedci.federation.places import Places


def guide(places: Places) -> Iterator[str]:
    """Lines for a person; the page's token is named by its file, never shown."""
    yield "everything is left running; Ctrl-C stops it"
    for customer in CUSTOMERS:
        directory = places.of("controllers", customer.person)
        token = directory / controller_setup.API_TOKEN
        yield f"{customer.person}'s pages: {places.url('controllers', customer.person)} (token: cat {token})"
        yield f"  ./run fedci controller runs {directory}"
    for provider in PROVIDERS:
        yield f"{provider.person}'s tenants: ./run fedci desk tenants {places.of('desks', provider.person)}"
        yield f"  ./run fedci ledger tail {places.of('ledgers', provider.person)} --offset first"
