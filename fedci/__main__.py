"""`python -m fedci`: the same as the `fedci` command."""

from fedci.cli import main

main()
