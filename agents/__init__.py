"""What a provider runs: the desk, workers with their sandbox, the artifact store and the ledger.

No agent imports another; only the worker imports the sandbox (DESIGN §3).
"""
