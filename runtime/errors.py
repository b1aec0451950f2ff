"""The base of every error that fedci raises, and its three families.

| family | whose fault | what the caller does |
|---|---|---|
| `PeerFault` | another party sent what it must not | refuse it, count it, go on |
| `WorldFault` | network, disk, broker, database | try again later |
| `OurFault` | this installation: code, settings, files | stop, a person must act |

A message says what is wrong, where, and the next step. Expected refusals are values
(`schemas.refusals`), not exceptions.
"""

from collections.abc import Iterator


class FedciError(Exception):
    """Something went wrong: `what`, `where` (file, key, URL), `remedy` (next step)."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where, remedy)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        step = f"\n  {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{step}"


class PeerFault(FedciError):
    """Another party broke the contract; trying again does not help."""


class WorldFault(FedciError):
    """The surroundings failed; the same call may succeed later."""


class OurFault(FedciError):
    """This installation is wrong; the role stops until a person has acted."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the single errors inside nested exception groups, in order."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
