"""The command line, the roles put together, the federation on one machine, and the doctor.

Nothing below imports this house; it may import all of them, and does so only inside the command that needs it.
"""
