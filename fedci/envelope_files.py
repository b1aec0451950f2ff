"""Envelopes in files: one, many one after the other, or a directory of `*.fedci`.

A file is a sequence of msgpack values; each is cut out byte for byte and nothing of it is believed or changed, for a
statement is known by the digest of exactly its bytes.
"""

from pathlib import Path

import msgpack

from runtime.errors import OurFault

SUFFIX = ".fedci"
MAX_FILE_BYTES = 2**30


def read_envelopes(path: Path) -> list[bytes]:
    """The envelopes in this file, or in all `*.fedci` files of this directory, by name.

    Raises OurFault that names the file, and the byte at which it stops being a sequence of envelopes.
    """
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    return [envelope for file in files for envelope in cut(read_file(file), where=str(file))]


def cut(data: bytes, *, where: str = "") -> list[bytes]:
    """The msgpack values in `data`, each as its own bytes."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(data), 1))
    unpacker.feed(data)
    envelopes = []
    begin = 0
    while begin < len(data):
        try:
            unpacker.skip()
        except (msgpack.UnpackException, ValueError) as error:
            raise OurFault(
                f"from byte {begin} on this is no envelope ({type(error).__name__})",
                where=where,
                remedy="Give a file of envelopes, as they were received.",
            ) from error
        end = unpacker.tell()
        envelopes.append(data[begin:end])
        begin = end
    return envelopes


def read_file(path: Path) -> bytes:
    """The bytes of a file of bounded size; raises OurFault that names it."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise OurFault(f"larger than {MAX_FILE_BYTES} bytes", where=str(path), remedy="Give a smaller one.")
        return path.read_bytes()
    except OSError as error:
        raise OurFault(f"cannot be read ({error.strerror})", where=str(path), remedy="Name another file.") from error
