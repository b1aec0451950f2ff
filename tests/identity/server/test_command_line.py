"""`fedci identity`: the operator's commands, and the server as the process that it is."""

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from fedci.commands.identity import app
from identity.account import Account, TokenRefused, read_api_token
from identity.keys import SigningKey
from runtime.clock import SystemClock
from runtime.errors import OurFault
from runtime.http_client import open_client
from runtime.secrets import SecretError

SERVE_SECONDS = 20


def fedci(*arguments: object) -> str:
    """Run a command in this process; errors come out as they are."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "id"
    fedci("init", made, "--issuer", "http://127.0.0.1:8101", "--listen", "127.0.0.1:0")
    return made


def test_an_account_is_added_listed_and_given_an_api_token(directory: Path, tmp_path: Path) -> None:
    fedci("account", "add", directory, "dinah")
    out = tmp_path / "dinah.token"
    fedci("token", "issue", directory, "dinah", "--out", out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert read_api_token(out).startswith("fedci_")
    shown = fedci("token", "issue", directory, "dinah").strip()
    assert shown.startswith("fedci_")
    assert "2 API token(s)" in fedci("account", "list", directory)
    assert fedci("token", "list", directory, "dinah").count("issued") == 2
    assert "revoked API token 1" in fedci("token", "revoke", directory, 1)
    assert fedci("token", "list", directory, "dinah").count("issued") == 1
    log = fedci("audit", directory)
    assert "api-token-revoked" in log
    assert shown not in log


def test_where_the_token_file_cannot_be_written_no_token_is_issued(directory: Path, tmp_path: Path) -> None:
    fedci("account", "add", directory, "dinah")
    out = tmp_path / "taken"
    out.touch()
    with pytest.raises(SecretError, match="never overwritten"):
        fedci("token", "issue", directory, "dinah", "--out", out)
    assert "0 API token(s)" in fedci("account", "list", directory)


def test_an_account_is_disabled_enabled_and_rekeyed(directory: Path) -> None:
    fedci("account", "add", directory, "dinah")
    fedci("account", "disable", directory, "dinah")
    assert "disabled" in fedci("account", "list", directory)
    fedci("account", "enable", directory, "dinah")
    fedci("account", "rekey", directory, "dinah")
    assert "enabled" in fedci("account", "list", directory)


def test_a_directory_without_an_identity_server_is_named_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(OurFault, match="init"):
        fedci("account", "list", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_rotated_at_once_only_in_an_emergency(directory: Path) -> None:
    with pytest.raises(OurFault, match="--emergency"):
        fedci("key", "rotate", directory)
    before = {path.name for path in (directory / "keys").iterdir()}
    kid = fedci("key", "rotate", directory, "--emergency").split()[-1]
    after = {path.name for path in (directory / "keys").iterdir()}
    assert before - after == {f"{kid}.pem"}
    assert len(after) == 2


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[str]:
    """The server as a process; gives its URL and stops it in the end as an operator would."""
    process = await asyncio.create_subprocess_exec(*serve_command(directory), stderr=asyncio.subprocess.PIPE)
    try:
        assert process.stderr is not None
        async with asyncio.timeout(SERVE_SECONDS):
            while (line := json.loads(await process.stderr.readline()))["event"] != "ready":
                pass
        yield line["urls"]["http"]
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(SERVE_SECONDS):
            await process.communicate()
    assert process.returncode == 0


async def test_a_running_server_sees_what_the_command_line_changes_and_runs_once(
    directory: Path, tmp_path: Path
) -> None:
    run = asyncio.to_thread
    async with serving(directory) as url, open_client() as client:
        await run(fedci, "account", "add", directory, "dinah")
        await run(fedci, "token", "issue", directory, "dinah", "--out", tmp_path / "token")
        account = Account(
            issuer=url,
            sub="dinah",
            api_token=read_api_token(tmp_path / "token"),
            key=SigningKey.generate(),
            client=client,
            clock=SystemClock(),
        )
        # The issuer's URL in the settings is another one, and a proof is for one URL.
        with pytest.raises(TokenRefused, match="htu"):
            await account.token("fedci:provider:alice")
        kids = await published(client, url)
        await run(fedci, "key", "rotate", directory, "--emergency")
        assert len(await published(client, url) & kids) == 1

        second = await run(subprocess.run, serve_command(directory), capture_output=True, timeout=SERVE_SECONDS)
        assert second.returncode == 2
        assert b"already in use" in second.stderr


async def test_a_directory_restored_without_its_keys_does_not_start(directory: Path) -> None:
    for path in (directory / "keys").iterdir():
        path.unlink()
    started = await asyncio.to_thread(
        subprocess.run, serve_command(directory), capture_output=True, timeout=SERVE_SECONDS
    )
    assert started.returncode == 2
    assert b"keys/" in started.stderr


async def published(client: httpx.AsyncClient, url: str) -> set[str]:
    return {key["kid"] for key in (await client.get(f"{url}/jwks")).json()["keys"]}


def serve_command(directory: Path) -> list[str]:
    return [sys.executable, "-m", "fedci", "identity", "serve", str(directory)]
