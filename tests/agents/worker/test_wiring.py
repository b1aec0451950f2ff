"""A worker that is put together, and how light it is."""

import json
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from typer.testing import CliRunner

from agents.sandbox.executor import Mount
from agents.worker import setup
from agents.worker.equipment import make_jails
from agents.worker.jobs.jails import Jails, Toolchain
from agents.worker.journal.claims import Journal
from agents.worker.labels import Machine
from agents.worker.lending import slot_size
from agents.worker.settings import FILE, WorkerSettings
from agents.worker.status import read_doing, read_journal
from agents.worker.stores import ConfiguredStores
from fedci.commands.worker import SETTINGS, app
from identity.keys import SigningKey, b64url
from runtime.errors import OurFault
from runtime.settings import SettingsError, load
from schemas.orders import GrantSecrets
from schemas.refusals import Reason, Refusal
from tests.agents.worker.jobs import make_job

ROOT_KEY = b64url(SigningKey.generate().public)
FORBIDDEN = ("sqlalchemy", "starlette", "fastapi", "authlib", "alembic", "jinja2", "aiosqlite", "uvicorn", "uvloop")
IDLE_MEGABYTES = 80


def _settings(more: str = "") -> str:
    text = SETTINGS.format(
        provider="alice.example",
        name="w7",
        pool="fast",
        labels='["board=k1"]',
        slots=2,
        desk_url="http://127.0.0.1:1",
        root_key=ROOT_KEY,
        executor="process",
    )
    return text + more


def _load(tmp_path: Path, more: str) -> WorkerSettings:
    (tmp_path / FILE).write_text(_settings(more))
    return load(tmp_path / FILE, WorkerSettings)


def test_what_init_writes_can_be_loaded_and_its_key_is_kept_secret(tmp_path: Path) -> None:
    public = setup.init(tmp_path / "w", _settings())
    assert load(tmp_path / "w" / FILE, WorkerSettings).labels == ("board=k1",)
    assert (tmp_path / "w" / "agent.key").stat().st_mode & 0o777 == 0o600
    assert SigningKey.load(tmp_path / "w" / "agent.key").public == public


def test_a_second_init_leaves_the_first_worker_alone(tmp_path: Path) -> None:
    setup.init(tmp_path / "w", _settings())
    with pytest.raises(OurFault, match="a worker here already"):
        setup.init(tmp_path / "w", _settings())


WRONG = [
    ('[[issuers]]\nurl = "http://127.0.0.1:2"\n', "no \\[\\[accounts\\]\\] entry"),
    ('[[toolchains]]\nname = "x"\npath = "relative"\n', "absolute"),
    ('[[stores]]\nname = "b"\nurl = "http://127.0.0.1:3"\n' * 2, "listed twice: store b"),
    ('[[stores]]\nname = "b"\nurl = "http://store.example"\n', "plaintext"),
    ("[[toolchain]]\n", "did you mean `toolchains`"),
]


@pytest.mark.parametrize(("more", "message"), WRONG)
def test_wrong_settings_are_told_with_their_place(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        _load(tmp_path, more)


def test_a_toolchain_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    settings = _load(tmp_path, '[[toolchains]]\nname = "gone"\npath = "/no/such/directory"\n')
    with pytest.raises(OurFault, match="no directory /no/such/directory"):
        make_jails(settings, ())


def test_a_toolchain_whose_place_no_sandbox_can_give_stops_the_start(tmp_path: Path) -> None:
    settings = _load(tmp_path, f'[[toolchains]]\nname = "x"\npath = "{tmp_path}"\ntarget = "/usr/x"\n')
    with pytest.raises(OurFault, match="toolchain x"):
        make_jails(settings, ())


def test_a_job_gets_the_toolchains_that_it_names_and_no_others() -> None:
    python, base = Mount(Path("/srv/python"), PurePosixPath("/toolchains/python")), PurePosixPath("/opt/base")
    toolchains = (
        Toolchain("python", "", (python, Mount(Path("/opt/base"), base)), ("/toolchains/python/bin",)),
        Toolchain("rust", "", (Mount(Path("/srv/rust"), PurePosixPath("/toolchains/rust")),), ("/toolchains/rust",)),
    )
    jails = Jails("alice.example", "w7", "process", toolchains, (), 1.0)
    spec = jails.spec_of(make_job(toolchains=("python",)), GrantSecrets(), 1)
    assert [str(mount.target) for mount in spec.mounts] == ["/toolchains/python", "/opt/base"]
    assert (spec.path, spec.slot) == (("/toolchains/python/bin",), 1)


def test_a_toolchain_is_seen_below_its_own_name_unless_told_otherwise(tmp_path: Path) -> None:
    more = f'[[toolchains]]\nname = "python"\npath = "{tmp_path}"\npath_entries = ["bin", "sbin"]\n'
    (toolchain,) = make_jails(_load(tmp_path, more), ()).toolchains
    assert [str(mount.target) for mount in toolchain.mounts] == ["/toolchains/python"]
    assert toolchain.path == ("/toolchains/python/bin", "/toolchains/python/sbin")


def test_the_log_says_what_is_not_enforced() -> None:
    header = Jails("alice.example", "w7", "process", (), ("no isolation",), 1.0).header_of(make_job(network=True))
    assert "network on" in header
    assert "not enforced here: no isolation" in header


def test_slots_share_the_machine_unless_told_otherwise(tmp_path: Path) -> None:
    machine = Machine("linux", "x86_64", 4, 8 * 2**30)
    assert slot_size(_load(tmp_path, ""), machine).cores == 2
    assert slot_size(_load(tmp_path, ""), machine).memory_bytes == 4 * 2**30


async def test_a_store_that_the_owner_did_not_list_is_not_reached() -> None:
    refusal = await ConfiguredStores({}).open_tab("mallory.example", b"")
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.STORE_NOT_REACHABLE


async def test_status_reads_a_worker_that_does_not_run(tmp_path: Path) -> None:
    setup.init(tmp_path / "w", _settings())
    journal = await Journal.open(tmp_path / "w" / "worker.sqlite")
    assert read_journal(tmp_path / "w" / "worker.sqlite").claims == ()
    await journal.close()
    result = CliRunner().invoke(app, ["status", str(tmp_path / "w")])
    assert result.exit_code == 0
    assert "not running" in result.output
    assert read_doing(tmp_path / "w") is None


def test_the_command_line_makes_a_worker_and_says_what_is_next(tmp_path: Path) -> None:
    arguments = ["init", str(tmp_path / "w"), "--provider", "alice.example", "--name", "w7", "--pool", "fast"]
    arguments += ["--desk-url", "http://127.0.0.1:1", "--root-key", ROOT_KEY, "--label", "board=k1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "fedci desk enrol DESK w7 --role worker --key" in result.output


def test_the_worker_loads_no_database_library_and_no_web_framework_and_is_light() -> None:
    code = (
        "import agents.worker.wiring, json, sys, pathlib;"
        "pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1]);"
        "print(json.dumps([sorted(sys.modules), pages * 4096]))"
    )
    modules, resident_bytes = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    assert {name.partition(".")[0] for name in modules}.isdisjoint(FORBIDDEN)
    assert resident_bytes < IDLE_MEGABYTES * 1_000_000
