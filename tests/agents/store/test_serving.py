"""The store as a role: made once, ready without its bus, and clear about what it waits for."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from agents.store import setup, wiring
from agents.store.settings import FILE, StoreSettings
from fedci.commands.store import app
from identity.keys import SigningKey, b64url
from runtime.errors import OurFault
from runtime.lifecycle import Stop
from runtime.settings import SettingsError, load

ROOT = b64url(SigningKey.generate().public)


def make(directory: Path) -> str:
    arguments = ["init", str(directory), "--provider", "bettina.example", "--desk-url", "http://127.0.0.1:1"]
    result = CliRunner().invoke(app, [*arguments, "--root-key", ROOT, "--listen", "127.0.0.1:0"])
    assert result.exit_code == 0, result.output
    return result.output


def test_init_makes_a_key_and_settings_and_says_what_is_next(tmp_path: Path) -> None:
    output = make(tmp_path / "store")
    public = b64url(SigningKey.load(tmp_path / "store" / "agent.key").public)
    assert f"fedci desk enrol DESK store --role store --key {public}" in output
    settings = load(tmp_path / "store" / FILE, StoreSettings)
    assert (settings.provider, settings.keep_days) == ("bettina.example", 90)


def test_the_settings_that_init_shows_as_comments_are_the_defaults(tmp_path: Path) -> None:
    make(tmp_path / "store")
    shown = load(tmp_path / "store" / FILE, StoreSettings)
    text = (tmp_path / "store" / FILE).read_text()
    for name in ("quota_bytes", "blob_bytes", "keep_free_bytes", "keep_days", "tab_hours"):
        line = next(line for line in text.splitlines() if line.startswith(f"# {name} = "))
        assert int(line.split("=")[1].split("#")[0]) == getattr(shown, name), name


def test_a_second_init_leaves_the_first_alone(tmp_path: Path) -> None:
    make(tmp_path / "store")
    key = (tmp_path / "store" / "agent.key").read_bytes()
    with pytest.raises(OurFault, match="a store here already"):
        setup.init(tmp_path / "store", "")
    assert (tmp_path / "store" / "agent.key").read_bytes() == key


def test_wrong_settings_are_told_by_their_keys(tmp_path: Path) -> None:
    make(tmp_path / "store")
    path = tmp_path / "store" / FILE
    path.write_text(path.read_text() + '\nkeep_day = 3\nquota_bytes = "much"\n')
    with pytest.raises(SettingsError, match=r"(?s)did you mean `keep_days`.*|quota_bytes"):
        load(path, StoreSettings)


async def test_it_is_ready_without_its_bus_and_says_that_it_waits(tmp_path: Path) -> None:
    make(tmp_path / "store")
    stop, ready = Stop(), tmp_path / "store" / "store.ready"
    async with asyncio.TaskGroup() as tasks, httpx.AsyncClient() as http:
        tasks.create_task(wiring.serve(tmp_path / "store", stop))
        async with asyncio.timeout(10):
            while not ready.exists():  # noqa: ASYNC110  # as a start script does
                await asyncio.sleep(0.01)
        url = json.loads(ready.read_text())["urls"]["http"]
        health, readiness, metrics = [await http.get(url + path) for path in ("/healthz", "/readyz", "/metrics")]
        stop.press()
    assert health.status_code == 200
    assert (readiness.status_code, list(readiness.json()["waiting_for"])) == (503, ["bus"])
    assert "fedci_store_free_bytes" in metrics.text
