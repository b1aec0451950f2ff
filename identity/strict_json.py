"""JSON from strangers, with one reading only (RFC 8259 §4, RFC 8725 §2.4).

Refused are: a name that stands twice in one object (two readers could take two values), `NaN` and `Infinity`, nesting
that exhausts the parser, bytes that are not UTF-8, and a top level that is not an object. Size is the caller's to cap.
"""

import json
from typing import Any


def read_object(data: bytes) -> dict[str, Any]:
    """The one JSON object in these bytes; raises `ValueError` with what is wrong."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_refuse_repeated, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos})") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in one JSON object")
    return result


def _refuse_constant(_name: str) -> object:
    raise ValueError("a number that is none")
