"""The shell script that runs a job's steps inside the jail, and the reading of what it reports.

The script comes to `/bin/sh` on its standard input, from memory: environment and secrets so enter the jail without
touching a command line, a disk, or the environment of any program that still has privileges. Each step is a file,
run by `sh -eu` in the workspace with the reporting descriptor closed. POSIX sh only (dash, busybox, bash).

The reports (`up`, `begin N`, `end N CODE`) are the job's own word: a hostile step could forge them and lie about
itself, as it could by its exit code. `Reports` therefore takes what is in order and drops the rest. Imported by the
warden: no dataclasses, no typing.
"""

from collections.abc import Mapping

STATUS_FD = 9
MAX_PENDING_BYTES = 4096


def quote(value: str) -> str:
    """Returns `value` as one single-quoted shell word."""
    return "'" + value.replace("'", "'\\''") + "'"


def script(steps: list[str], env: Mapping[str, str], workspace: str) -> str:
    """Returns the driver's text; `steps` are the paths of the step files as the jail sees them."""
    lines = ["umask 022", f"printf 'up\\n' >&{STATUS_FD}"]
    lines += [f"export {name}={quote(value)}" for name, value in env.items()]
    # A handler, unlike "ignore", is not inherited by the steps: SIGTERM ends them, the driver lives to report it.
    # After the step that got the signal no other one may start, even if that step ends well.
    lines += ["_fedci_ended=", "trap '_fedci_ended=1' TERM", f"cd {quote(workspace)} || exit 125"]
    for number, path in enumerate(steps):
        lines += _step(number, path)
    lines.append("exit 0")
    return "\n".join(lines) + "\n"


def _step(number: int, path: str) -> list[str]:
    return [
        f"printf 'begin {number}\\n' >&{STATUS_FD}",
        f"/bin/sh -eu {quote(path)} {STATUS_FD}>&- </dev/null",
        "_fedci_code=$?",
        f"printf 'end {number} %d\\n' $_fedci_code >&{STATUS_FD}",
        '[ "$_fedci_code" -eq 0 ] || exit "$_fedci_code"',
        '[ -z "$_fedci_ended" ] || exit 143',
    ]


class Reports:
    """Takes the driver's bytes, gives its reports in order: at most one `up`, then begin and end of each step."""

    def __init__(self, step_count: int) -> None:
        self.is_up = False
        self._expected = [("begin", n // 2) if n % 2 == 0 else ("end", n // 2) for n in range(2 * step_count)]
        self._pending = b""

    def feed(self, data: bytes) -> list[tuple[str, int, int]]:
        """Returns the new reports as (word, step, exit code); the code is 0 for `begin`."""
        *lines, rest = (self._pending + data).split(b"\n")
        self._pending = rest[:MAX_PENDING_BYTES]
        return [report for line in lines if (report := self._take(line.split())) is not None]

    def _take(self, words: list[bytes]) -> tuple[str, int, int] | None:
        if words == [b"up"]:
            self.is_up = True
            return None
        if not self._expected or len(words) not in (2, 3) or not all(word.isdigit() for word in words[1:]):
            return None
        word, step = self._expected[0]
        if words[0] != word.encode() or int(words[1][:9]) != step:
            return None
        del self._expected[0]
        return word, step, int(words[2][:9]) if len(words) == 3 else 0
