"""The worker: its decisions, its memory, and the story of a job, with a bus in memory and no sandbox but `process`."""
