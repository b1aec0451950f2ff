"""Which agents may state usage, and at what prices: read from the provider's own card, as all its agents do."""

from identity.own_card import OwnCard

__all__ = ["OwnCard"]
