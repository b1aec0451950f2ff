"""A house with two revisions, for the tests of `runtime.migrations`."""
