"""A whole federation on one machine: every part a process of its own, exactly as it would be deployed.

* `cast` – who is who, whom they trust, what they charge
* `founding` – makes everyone's data directory, with the same functions that `init` and `enrol` call
* `processes` – starts the roles, watches them, stops them
* `story` – what happens: two builds at once, by two customers, on two owners' machines
* `trespass` – what must not happen: four refusals, asked for at the real doors
* `report`, `screen` – what it looks like, for machines and for people
"""
