"""The revisions of the controller's database; `runtime.migrations` runs them."""
