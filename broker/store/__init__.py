"""Every query of the controller, by subject. Each function works inside the caller's transaction.

`projects` – projects and their secrets · `providers` – pinned roots, cards, alarms · `runs` – runs and jobs ·
`attempts` – attempts, refusals, artifacts · `claims` – claims, reports, orphans · `usage` – usage facts and receipts
"""
