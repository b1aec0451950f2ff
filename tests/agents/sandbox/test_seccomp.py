"""The filter, run by a small machine of the kernel's kind: what each call gets."""

import struct

import pytest

from agents.sandbox.seccomp import _MACHINES, program

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
NEW_USER = 0x10000000


def verdict(code: bytes, architecture: int, number: int, first: int = 0) -> int:
    """Interprets classic BPF over `struct seccomp_data`, as linux/filter.h defines it."""
    data = struct.pack("=IIQQ", number, architecture, 0, first) + bytes(40)
    at, accumulator = 0, 0
    while True:
        op, if_true, if_false, value = struct.unpack_from("=HBBI", code, at * 8)
        at += 1
        if op == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif op == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[op]
            at += if_true if holds else if_false


@pytest.mark.parametrize("machine", sorted(_MACHINES))
def test_every_refused_call_is_refused_and_its_neighbours_are_not(machine: str) -> None:
    architecture, refused, namespace_makers, clone3 = _MACHINES[machine]
    code = program(machine)
    assert code is not None
    special = {*refused.values(), clone3}
    for number in range(500):
        expected = ENOSYS if number == clone3 else EPERM if number in special else ALLOW
        assert verdict(code, architecture, number) == expected, number
    for number in namespace_makers:
        assert verdict(code, architecture, number, NEW_USER | 0x11) == EPERM
        assert verdict(code, architecture, number, 0x11) == ALLOW


@pytest.mark.parametrize("machine", sorted(_MACHINES))
def test_another_instruction_set_is_refused_whole(machine: str) -> None:
    code = program(machine)
    assert code is not None
    assert verdict(code, 0x40000003, 1) == ENOSYS  # i386


def test_x32_calls_are_refused() -> None:
    code = program("x86_64")
    assert code is not None
    assert verdict(code, 0xC000003E, 0x40000000 + 1) == ENOSYS


def test_an_unknown_machine_has_no_filter() -> None:
    assert program("pdp11") is None
