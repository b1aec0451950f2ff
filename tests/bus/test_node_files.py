"""A node's directory remembers who it was, and its configuration opens nothing but loopback."""

import socket
from pathlib import Path

from bus.node_files import choose_ports, node_environment, remembered_ports, write_node_files


def test_a_new_directory_remembers_no_ports(tmp_path: Path) -> None:
    assert remembered_ports(tmp_path) is None


def test_ports_and_password_of_the_last_start_are_kept(tmp_path: Path) -> None:
    ports = choose_ports()
    password = write_node_files(tmp_path, ports)

    assert remembered_ports(tmp_path) == ports
    assert write_node_files(tmp_path, ports) == password


def test_ports_that_somebody_took_since_are_forgotten(tmp_path: Path) -> None:
    ports = choose_ports()
    write_node_files(tmp_path, ports)

    with socket.create_server(("127.0.0.1", ports.management)):
        assert remembered_ports(tmp_path) is None


def test_two_directories_share_neither_password_nor_cookie(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for directory in (one, other):
        directory.mkdir()
        write_node_files(directory, choose_ports())

    for name in ("admin.password", "home/.erlang.cookie"):
        assert (one / name).read_text() != (other / name).read_text()


def test_the_node_reads_the_password_as_a_hash_only(tmp_path: Path) -> None:
    password = write_node_files(tmp_path, choose_ports())

    files = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "admin.password"]
    assert not [file for file in files if password in file.read_text()]


def test_the_node_inherits_nothing_of_our_environment(tmp_path: Path) -> None:
    environment = node_environment(tmp_path, choose_ports(), "/bin")

    assert (environment["PATH"], environment["HOME"]) == ("/bin", str(tmp_path / "home"))
