"""Working with a controller from the command line."""
