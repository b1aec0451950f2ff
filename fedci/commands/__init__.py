"""One module a sub-command of `fedci`; each holds a Typer `app` and imports its house inside its functions."""
