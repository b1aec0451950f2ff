"""What a person types, or pipes, into a command."""

import sys

import typer


def read_value(prompt: str) -> str:
    """A secret from the terminal without echo, or all of a pipe without the newline at its end."""
    if sys.stdin.isatty():
        return str(typer.prompt(prompt, hide_input=True))
    return sys.stdin.read().removesuffix("\n")
