"""A small seccomp filter for jails: no new user namespaces, no mounts, no kernel keyrings, no exotic kernel doors.

It is a list of refusals, not of permissions: a build must be able to run any compiler, debugger or test. What is
refused needs a capability anyway (and would get one inside a user namespace of the job's own making), or is known as
a door for kernel exploits and of no use to a build. A second instruction set (x32, or i386 on x86-64) is refused
whole, for its calls have other numbers. Numbers: Linux `arch/*/entry/syscalls`; format: `linux/filter.h`.
"""

import os
import struct

_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_NUMBER_AT, _ARCH_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_CLONE_NEWUSER = 0x10000000
_X32_BIT = 0x40000000

_COMMON = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442,
}  # fmt: skip
_GENERIC = _COMMON | {
    "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "swapon": 224, "swapoff": 225, "reboot": 142,
    "init_module": 105, "delete_module": 106, "finit_module": 273, "kexec_load": 104, "kexec_file_load": 294,
    "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
    "open_by_handle_at": 265, "acct": 89, "quotactl": 60, "syslog": 116, "setns": 268,
}  # fmt: skip
_X86_64 = _COMMON | {
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "swapon": 167, "swapoff": 168, "reboot": 169,
    "init_module": 175, "delete_module": 176, "finit_module": 313, "kexec_load": 246, "kexec_file_load": 320,
    "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
    "open_by_handle_at": 304, "acct": 163, "quotactl": 179, "syslog": 103, "setns": 308,
}  # fmt: skip
_ARM = _COMMON | {
    "mount": 21, "umount2": 52, "pivot_root": 218, "chroot": 61, "swapon": 87, "swapoff": 115, "reboot": 88,
    "init_module": 128, "delete_module": 129, "finit_module": 379, "kexec_load": 347, "kexec_file_load": 401,
    "add_key": 309, "request_key": 310, "keyctl": 311, "bpf": 386, "perf_event_open": 364, "userfaultfd": 388,
    "open_by_handle_at": 371, "acct": 51, "quotactl": 131, "syslog": 103, "setns": 375,
}  # fmt: skip

# machine → (audit architecture, refused, calls whose first argument may hold CLONE_NEWUSER, clone3)
_MACHINES = {
    "x86_64": (0xC000003E, _X86_64, (56, 272), 435),
    "aarch64": (0xC00000B7, _GENERIC, (220, 97), 435),
    "riscv64": (0xC00000F3, _GENERIC, (220, 97), 435),
    "armv7l": (0x40000028, _ARM, (120, 337), 435),
}


def _instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _refuse(number: int, error: int) -> bytes:
    return _instruction(_EQUAL, 0, 1, number) + _instruction(_RETURN, 0, 0, _ERRNO | error)


def _refuse_new_user_namespace(number: int) -> bytes:
    return b"".join(
        (
            _instruction(_EQUAL, 0, 4, number),
            _instruction(_LOAD, 0, 0, _FIRST_ARGUMENT_AT),  # the low half: all machines above are little-endian
            _instruction(_BITS, 0, 1, _CLONE_NEWUSER),
            _instruction(_RETURN, 0, 0, _ERRNO | _EPERM),
            _instruction(_LOAD, 0, 0, _NUMBER_AT),
        )
    )


def program(machine: str) -> bytes | None:
    """Returns the filter for `machine` (as `uname -m` names it), or None if its call numbers are not known here."""
    if machine not in _MACHINES:
        return None
    architecture, refused, namespace_makers, clone3 = _MACHINES[machine]
    parts = [
        _instruction(_LOAD, 0, 0, _ARCH_AT),
        _instruction(_EQUAL, 1, 0, architecture),
        _instruction(_RETURN, 0, 0, _ERRNO | _ENOSYS),
        _instruction(_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        parts += [_instruction(_AT_LEAST, 0, 1, _X32_BIT), _instruction(_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    # clone3 hides its flags behind a pointer that no filter can read; C libraries fall back to clone.
    parts.append(_refuse(clone3, _ENOSYS))
    parts += [_refuse_new_user_namespace(number) for number in namespace_makers]
    parts += [_refuse(number, _EPERM) for number in sorted(refused.values())]
    parts.append(_instruction(_RETURN, 0, 0, _ALLOW))
    return b"".join(parts)


def own_program() -> bytes | None:
    return program(os.uname().machine)
