"""A worker takes what it offers and says exactly why it does not take the rest."""

from dataclasses import replace
from typing import Any

import pytest

from agents.worker.orders.admission import Admitted, Asked, Lent, Refused, admit, needs_store
from schemas import limits
from schemas.orders import InputFile, OutputArtifact, Resources, Source, Step
from schemas.refusals import Reason
from tests.agents.worker.jobs import LENT, TENANT, make_job

DIGEST = "ab" * 32


def _admit(lent: Lent = LENT, origin: str = TENANT, *, is_draining: bool = False, **job: Any) -> Admitted | Refused:
    return admit(Asked(make_job(**job), TENANT, origin), lent, is_draining=is_draining)


def test_a_job_that_fits_is_admitted() -> None:
    admitted = _admit(toolchains=("python",), store="bettina.example", resources=Resources(cores=2))
    assert isinstance(admitted, Admitted)
    assert admitted.tenant == TENANT


REFUSED: list[tuple[Reason, str, dict[str, Any]]] = [
    (Reason.WRONG_ORIGIN, "final", {"origin": "t" + "a" * 26}),
    (Reason.DRAINING, "here", {"is_draining": True}),
    (Reason.POOL_UNKNOWN, "final", {"pool": "slow"}),
    (Reason.LABELS_NOT_OFFERED, "here", {"labels": ("os=linux", "board=risc-v-k1")}),
    (Reason.TOOLCHAIN_NOT_OFFERED, "here", {"toolchains": ("python", "rust")}),
    (Reason.RESOURCES_TOO_LARGE, "here", {"resources": Resources(cores=3)}),
    (Reason.RESOURCES_TOO_LARGE, "here", {"resources": Resources(memory_bytes=3 * limits.GIB)}),
    (Reason.RESOURCES_TOO_LARGE, "here", {"resources": Resources(disk_bytes=5 * limits.GIB)}),
    (Reason.RESOURCES_TOO_LARGE, "here", {"resources": Resources(processes=513)}),
    (Reason.STORE_NOT_REACHABLE, "here", {"store": "mallory.example"}),
    (Reason.STORE_NOT_REACHABLE, "here", {"source": Source(digest=DIGEST, size_bytes=1, revision="r")}),
    (Reason.STORE_NOT_REACHABLE, "here", {"inputs": (InputFile(path="a", digest=DIGEST, size_bytes=1),)}),
    (Reason.STORE_NOT_REACHABLE, "here", {"artifacts": (OutputArtifact(name="a", paths=("a",)),)}),
    (Reason.NETWORK_NOT_ALLOWED, "here", {"network": True}),
    (Reason.RATE_CARD_UNKNOWN, "final", {"rate_card": DIGEST}),
    (Reason.INVALID_REQUEST, "final", {"env": {"IFS": "x"}}),
    (Reason.INVALID_REQUEST, "final", {"secrets": ("PPID",)}),
    (Reason.INVALID_REQUEST, "final", {"env": {"A": "\0"}}),
    (Reason.INVALID_REQUEST, "final", {"steps": (Step(name="s", run="echo \0"),)}),
]


@pytest.mark.parametrize(("reason", "scope", "asked"), REFUSED)
def test_a_job_that_does_not_fit_is_refused_with_its_reason(reason: Reason, scope: str, asked: dict[str, Any]) -> None:
    refused = _admit(**asked)
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.scope) == (reason, scope)
    assert refused.detail


def test_a_stranger_at_anothers_exchange_learns_nothing_of_the_worker() -> None:
    refused = _admit(origin="t" + "a" * 26, pool="slow", labels=("nope",), network=True)
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.WRONG_ORIGIN


def test_network_is_had_where_the_owner_allows_it() -> None:
    assert isinstance(_admit(lent=replace(LENT, is_network_allowed=True), network=True), Admitted)


def test_a_job_that_carries_its_source_needs_no_store() -> None:
    assert not needs_store(make_job())
