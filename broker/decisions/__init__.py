"""What the controller decides, as pure functions: facts in, values out; no clock, no database, no bus.

Each module is one question. The services in `broker` gather the facts, ask, and carry the answer out; the state tables
of `schemas.life` and the ends of `schemas.ends` are the only law they know.
"""
