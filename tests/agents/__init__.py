"""The agents of a provider, each in its own directory."""
