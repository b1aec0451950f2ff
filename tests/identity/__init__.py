"""Tests of `identity`: keys, accounts, what is said and what is believed."""
