"""The command line, the composition of roles, and what holds the whole together."""
