"""The place where a hostile job's commands run, and nothing of it survives.

Life cycle: prepare → run → signal → collect → destroy. `executor` is the seam, `bubblewrap` and `process` are the
executors behind it, `warden` is the small process that outlives neither its lease nor its worker. Standard library
only: a board without wheels must manage it (DESIGN §3, §8).
"""
