"""Credentials of each kind, and what is said about those that do not work."""

import json
import stat
import sys

import pytest
import yaml

from cluster.jobs.kubernetes import connect
from cluster.jobs.kubernetes.api import Api
from cluster.jobs.kubernetes.connect import Connection, Target
from cluster.jobs.kubernetes.paths import RAY_JOBS
from cluster.jobs.kubernetes.retries import Patience
from rlcar.errors import UserError
from tests.support.kubernetes.certificates import Authority
from tests.support.kubernetes.rights import ADMIN


@pytest.fixture
def write(fake_kubeconfig, tmp_path):
    """Returns a function that writes a kubeconfig with changes."""

    def make(user=None, *, name="changed", context=None, **cluster):
        config = yaml.safe_load(fake_kubeconfig.read_text())
        config["clusters"][0]["cluster"] |= cluster
        if user is not None:
            config["users"][0]["user"] = user
        config["contexts"][0]["context"] |= context or {}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return make


def jobs_with(kubeconfig, context=None):
    target = Target(str(kubeconfig), context, "default")
    api = Api(Connection(target), Patience(attempts=2, first_pause_s=0.01))
    return api.list_all(RAY_JOBS)["items"]


def test_a_token_a_token_file_and_a_client_certificate_are_accepted(
    fake, fake_kubeconfig, write, authority, tmp_path
):
    assert jobs_with(fake_kubeconfig) == []
    file = tmp_path / "token"
    file.write_text(fake.add_token(ADMIN))
    assert jobs_with(write({"tokenFile": str(file)})) == []
    certificate, key = authority.issue(ADMIN)
    user = {"client-certificate": str(certificate), "client-key": str(key)}
    assert jobs_with(write(user)) == []


def plugin(tmp_path, program, name="plugin"):
    file = tmp_path / name
    file.write_text(f"#!{sys.executable}\n{program}")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    api = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": api, "command": str(file), "interactiveMode": "Never"}}


def test_a_plugin_is_run_and_a_failing_one_is_named(fake, write, tmp_path):
    credential = {"token": fake.add_token(ADMIN)}
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    text = json.dumps(answer | {"status": credential})
    assert jobs_with(write(plugin(tmp_path, f"print({text!r})"))) == []
    failing = plugin(tmp_path, "import sys; sys.exit('please log in first')", "failing")
    with pytest.raises(UserError, match=r"plugin of the kubeconfig fails .*log in first\): "):
        jobs_with(write(failing))


def test_a_token_file_that_is_renewed_is_read_again(fake, write, tmp_path):
    file = tmp_path / "token"
    file.write_text(fake.add_token(ADMIN))
    api = Api(Connection(Target(str(write({"tokenFile": str(file)})), None, "default")))
    fake.tokens.clear()
    file.write_text(fake.add_token(ADMIN))
    assert api.list_all(RAY_JOBS)["items"] == []


def test_an_expired_token_is_said_without_the_token(fake, write, capfd):
    with pytest.raises(UserError) as refused:
        jobs_with(write({"token": "secret-and-expired"}))
    assert "the token of user admin is expired or wrong; log in again" in str(refused.value)
    assert "secret" not in str(refused.value) + "".join(capfd.readouterr())


def test_inside_a_pod_the_service_account_is_used(fake, authority, tmp_path, monkeypatch):
    from kubernetes.config import incluster_config

    (tmp_path / "token").write_text(fake.add_token(ADMIN))
    (tmp_path / "namespace").write_text("inside")
    (tmp_path / "ca.crt").write_bytes(authority.certificate.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(fake.server_port))
    monkeypatch.setattr(connect, "_SERVICE_ACCOUNT", tmp_path)
    loader = incluster_config.InClusterConfigLoader

    def load(client_configuration=None, try_refresh_token=True):
        files = (str(tmp_path / "token"), str(tmp_path / "ca.crt"))
        loader(*files, try_refresh_token=try_refresh_token).load_and_set(client_configuration)

    monkeypatch.setattr("kubernetes.config.load_incluster_config", load)
    api = Api(Connection(Target()))
    assert api.namespace == "inside"
    assert api.list_all(RAY_JOBS)["items"] == []


def test_several_files_are_merged_and_the_first_one_counts(
    fake_kubeconfig, write, tmp_path, monkeypatch
):
    other = write({"token": "wrong"}, name="other", context={"namespace": "elsewhere"})
    text = other.read_text().replace("current-context: fake", "current-context: none")
    other.write_text(text.replace("name: fake\n", "name: second\n"))
    monkeypatch.setenv("KUBECONFIG", f"{fake_kubeconfig}:{tmp_path / 'absent'}:{other}")
    assert Connection(Target()).where.context == "fake"
    assert Connection(Target(context="second")).namespace == "elsewhere"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- a", "is no mapping"),
        ("users: [{name: u, user: {token: s3cret}}", "is not valid YAML in line"),
        ("users: [{user: {token: s3cret}}]", "users in kubeconfig .* is not a list of named"),
        ("users: [{name: u, user: {token: s3cret}}]", "has no contexts"),
        (
            "contexts: [{name: c, context: {cluster: gone, user: u}}]\ncurrent-context: c",
            "context c of kubeconfig .* names the cluster gone, which does not exist",
        ),
        (
            "contexts: [{name: c, context: {}}]",
            "has no current context: add --context; there ar",
        ),
        (
            "contexts: [{name: c, context: {cluster: k}}]\nclusters: [{name: k, cluster: {}}]\n"
            "current-context: c",
            "names no server",
        ),
    ],
)
def test_a_broken_kubeconfig_is_refused_without_its_secrets(text, message, tmp_path):
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as refused:
        Connection(Target(str(file)))
    assert "s3cret" not in str(refused.value)


def test_no_kubeconfig_and_a_wrong_context_are_said(rlcar, fake_kubeconfig, tmp_path, monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    code, out, err = rlcar("jobs", "list", "--kubernetes")
    assert code == 2
    assert "there is no kubeconfig: " in err
    assert "set KUBECONFIG, or use --kubeconfig" in err
    code, out, err = rlcar("jobs", "list", "--kubernetes", "--kubeconfig", "absent")
    assert (code, err) == (2, "error: --kubeconfig absent: there is no such file\n")
    words = ("--kubeconfig", fake_kubeconfig, "--context", "fakke")
    code, out, err = rlcar("jobs", "list", "--kubernetes", *words)
    assert code == 2
    assert "--context fakke does not exist" in err
    assert "did you mean 'fake'?" in err


def test_a_server_of_another_authority_or_without_tls_is_refused(fake, write, tmp_path):
    stranger = Authority(tmp_path, "stranger")
    from_stranger = {"certificate-authority": str(stranger.certificate)}
    kubeconfig = write(**from_stranger)
    config = yaml.safe_load(kubeconfig.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    kubeconfig.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="certificate is not signed by the authority in the kubec"):
        jobs_with(kubeconfig)
    with pytest.raises(UserError, match="nothing listens at https://127.0.0.1:1 "):
        jobs_with(write(server="https://127.0.0.1:1"))
    with pytest.raises(UserError, match="host name of https://no-such-host.invalid .* is unknown"):
        jobs_with(write(server="https://no-such-host.invalid"))
    with pytest.raises(UserError, match="the proxy on the way to .* fails"):
        jobs_with(write(**{"proxy-url": "http://127.0.0.1:1"}))


def test_an_unverified_server_is_used_only_where_the_kubeconfig_says_so(fake, write, tmp_path):
    config = yaml.safe_load(write().read_text())
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    kubeconfig = tmp_path / "insecure.yaml"
    kubeconfig.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="no secure connection"):
        jobs_with(kubeconfig)
    config["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
    kubeconfig.write_text(yaml.safe_dump(config))
    assert not Connection(Target(str(kubeconfig))).verifies_tls
