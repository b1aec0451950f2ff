"""A stand-in for a worker, in a process of its own, to be stopped and killed by a test.

Arguments: executor, state directory, job id, lease in seconds, script. Writes the job's log to its standard output.
"""

import asyncio
import os
import sys
from pathlib import Path

from agents.sandbox.local import Place, open_executor
from agents.sandbox.tree import boottime
from tests.sandboxes import spec


async def main(name: str, state: str, job_id: str, lease_seconds: str, script: str) -> None:
    executor = open_executor(name, Place(Path(state)))
    async with executor.prepare(spec(script, job_id=job_id)) as sandbox:
        async for chunk in sandbox.run(boottime() + float(lease_seconds)):
            os.write(1, chunk)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
