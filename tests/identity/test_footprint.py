"""What `identity` brings into a process: a board that runs a worker has neither a database nor a web framework."""

import subprocess
import sys

FORBIDDEN = ("sqlalchemy", "alembic", "authlib", "starlette", "fastapi", "uvicorn", "identity.server")
PROGRAM = "import sys, identity.account, identity.keys, identity.speech, identity.trust; print(*sys.modules)"


def test_all_but_the_server_needs_neither_a_database_nor_a_web_framework() -> None:
    loaded = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout.split()
    assert not [name for name in loaded if name.startswith(FORBIDDEN)]
