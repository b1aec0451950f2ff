"""Mirrors the houses; see each directory."""
