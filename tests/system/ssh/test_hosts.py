"""The hosts for OpenSSH: a private file of our own, and the user's lines as they were."""

import stat
from pathlib import Path

import pytest

from rlcar.errors import UserError
from rlcar.system.ssh.hosts import SshHost, add, blocks, make_host, remove

USERS_OWN = b"# caf\xe9: not UTF-8\nHost *.lab own\n\tUser me\n\nMatch host x\n  Port 3\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / ".ssh"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_host_is_added_once_and_the_users_own_lines_stay_byte_for_byte(folder, tmp_path):
    folder.mkdir()
    config = folder / "config"
    config.write_bytes(USERS_OWN)
    config.chmod(0o664)
    key = tmp_path / "a key"
    key.touch()
    host = make_host("gpu1", "trainer@10.0.0.5", 2222, key)
    assert len(add(host, folder, is_dry_run=True)) == 2
    assert list(folder.iterdir()) == [config]
    assert len(add(host, folder)) == 2
    assert config.read_bytes() == f'Include "{folder}/rlcar_hosts"\n'.encode() + USERS_OWN
    assert {mode(config), mode(folder / "rlcar_hosts")} == {0o600}
    assert blocks(folder) == {"gpu1": host.block()}
    assert f'  IdentityFile "{key}"\n' in host.block()
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())]
    assert add(host, folder) == []
    after = [(path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())]
    assert after == before


def test_a_changed_host_is_replaced_and_the_others_stay(folder):
    add(make_host("gpu1", "10.0.0.5"), folder)
    hosts = folder / "rlcar_hosts"
    hosts.write_text(hosts.read_text() + "  ProxyJump bastion\n")  # of the user
    second = make_host("gpu2", "me@[2001:db8::1]")
    add(second, folder)
    assert second.address == "2001:db8::1"
    assert add(make_host("gpu2", "you@gpu2.example.org"), folder) == [
        f"replace the host gpu2 in {hosts}"
    ]
    found = blocks(folder)
    assert list(found) == ["gpu1", "gpu2"]
    assert "  ProxyJump bastion\n" in found["gpu1"]
    assert "  User you\n" in found["gpu2"]
    remove("gpu1", folder)
    assert list(blocks(folder)) == ["gpu2"]
    with pytest.raises(UserError, match="has no host gpu1: rlcar host list"):
        remove("gpu1", folder)
    assert mode(folder) == 0o700


def test_the_include_counts_only_before_the_users_hosts(folder):
    folder.mkdir()
    config = folder / "config"
    include = f'Include "{folder}/rlcar_hosts"\n'
    config.write_text(f"# mine\n{include}Host a\n")
    assert add(make_host("gpu1", "10.0.0.5"), folder) == [
        f"add the host gpu1 in {folder}/rlcar_hosts"
    ]
    config.write_text(f"Host a\n{include}")
    add(make_host("gpu1", "10.0.0.5"), folder)
    assert config.read_text() == f"{include}Host a\n{include}"


def test_a_configuration_behind_a_link_stays_there(folder, tmp_path):
    folder.mkdir()
    kept = tmp_path / "dotfiles"
    kept.write_bytes(USERS_OWN)
    (folder / "config").symlink_to(kept)
    add(make_host("gpu1", "10.0.0.5"), folder)
    assert (folder / "config").is_symlink()
    assert kept.read_bytes().endswith(b"\n" + USERS_OWN)


@pytest.mark.parametrize("name", ["own", "*.lab"])
def test_a_host_of_the_users_own_is_not_hidden(folder, name):
    folder.mkdir()
    (folder / "config").write_bytes(USERS_OWN)
    with pytest.raises(UserError, match="of your own: use that one"):
        add(SshHost(name, "10.0.0.5"), folder)


@pytest.mark.parametrize(
    ("name", "address", "message"),
    [
        ("-oProxyCommand=x", "10.0.0.5", "is not a name for a host: use at most 63"),
        ("a b", "10.0.0.5", "is not a name for a host"),
        ("a\nHost *", "10.0.0.5", "is not a name for a host"),
        ("*", "10.0.0.5", "is not a name for a host"),
        ("", "10.0.0.5", "is not a name for a host"),
        ("gpu1", "-oProxyCommand=x", "is neither a host name nor an IP address"),
        ("gpu1", "me@-x", "is neither a host name nor an IP address"),
        ("gpu1", "me@host:22", "and the port with --port"),
        ("gpu1", "me@host\n  ProxyCommand x", "is neither a host name nor an IP address"),
        ("gpu1", "me@host;x", "is neither a host name nor an IP address"),
        ("gpu1", "-l@host", "'-l' is not the name of a user"),
        ("gpu1", "a@b@host", "'a@b' is not the name of a user"),
        ("gpu1", "@host", "'' is not the name of a user"),
        ("gpu1", "", "is neither a host name nor an IP address"),
    ],
)
def test_nothing_that_openssh_could_misread_is_accepted(name, address, message):
    with pytest.raises(UserError, match=message):
        make_host(name, address)


def test_a_key_must_exist_be_private_and_have_a_usable_path(tmp_path):
    for name, message in [
        ("missing", "does not exist: make a key with ssh-keygen"),
        ("key.pub", "is the public key: name the private one"),
        ('a"key', "OpenSSH cannot use a path with quotation marks"),
        ("a%dkey", "OpenSSH cannot use a path"),
        ("a${HOME}key", "OpenSSH cannot use a path"),
    ]:
        if name != "missing":
            (tmp_path / name).touch()
        with pytest.raises(UserError, match=message):
            make_host("gpu1", "10.0.0.5", identity=tmp_path / name)
