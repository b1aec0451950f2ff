"""The house `broker`."""
