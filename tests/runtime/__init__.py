"""The house `runtime`."""
