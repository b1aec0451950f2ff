"""Logs of jobs: taken in by byte offset, kept in one file a claim, read back at once or live (DESIGN §7.3).

* `intake` – chunks from a provider · `files` – on disk · `reading` – for people
"""
