"""Tests of the identity server: what it issues, and above all what it does not."""
