"""What is to be built: a directory or a repository's revision, as one reproducible snapshot (DESIGN §8).

* `resolving` – from a directory or repository to a snapshot · `git`, `tarball` – what it is done with
* `snapshots` – those that the controller keeps
"""
