"""Making a worker's data directory: its settings and its key."""

from pathlib import Path

from agents.worker.settings import FILE, WorkerSettings
from identity.keys import SigningKey
from runtime.errors import OurFault
from runtime.settings import load


def init(directory: Path, settings_text: str) -> bytes:
    """Make a worker in `directory`; its public key, to be enrolled at the desk.

    Raises OurFault (also as SettingsError) when something is there already or the settings cannot be used.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (directory / FILE).exists():
        raise OurFault("there is a worker here already", where=str(directory), remedy="Use another directory.")
    (directory / FILE).write_text(settings_text, encoding="utf-8")
    settings = load(directory / FILE, WorkerSettings)
    key = SigningKey.generate()
    key.save(directory / settings.key_file)
    return key.public
