"""What an error says to a person."""

from runtime.errors import FedciError, OurFault, PeerFault, WorldFault, leaves


def test_a_message_says_where_what_and_the_next_step() -> None:
    error = WorldFault("disk full", where="/var/x", remedy="Free some space.")
    assert str(error) == "/var/x: disk full\n  Free some space."


def test_a_bare_message_has_no_empty_decoration() -> None:
    assert str(OurFault("no such role")) == "no such role"


def test_leaves_opens_nested_groups_in_order() -> None:
    first, second = PeerFault("a"), WorldFault("b")
    group = BaseExceptionGroup("", [BaseExceptionGroup("", [first]), second])
    assert list(leaves(group)) == [first, second]
    assert all(isinstance(error, FedciError) for error in leaves(group))
