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

READ_JOBS = {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["list"]}


@pytest.fixture
def jobs_with(kube):
    """Returns a function that lists the jobs with a kubeconfig."""

    def jobs(kubeconfig):
        target = Target(str(kubeconfig), None, kube.namespace)
        api = Api(Connection(target), Patience(attempts=2, first_pause_s=0.01))
        return api.list_all(RAY_JOBS)["items"]

    return jobs


def without_authority(kubeconfig, path, **cluster):
    """Writes a kubeconfig without the authority of another one."""
    config = yaml.safe_load(kubeconfig.read_text())
    about = config["clusters"][0]["cluster"]
    for name in ("certificate-authority-data", "certificate-authority"):
        about.pop(name, None)
    about |= cluster
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.kubernetes_client
def test_a_token_and_a_token_file_are_accepted(kube, jobs_with, tmp_path):
    token = kube.token_with([READ_JOBS])
    assert jobs_with(kube.write_kubeconfig({"token": token}, "token")) == []
    file = tmp_path / "token"
    file.write_text(token)
    assert jobs_with(kube.write_kubeconfig({"tokenFile": str(file)}, "file")) == []


def test_a_client_certificate_is_accepted(kube, fake, jobs_with, authority):
    certificate, key = authority.issue(ADMIN)
    user = {"client-certificate": str(certificate), "client-key": str(key)}
    assert jobs_with(kube.write_kubeconfig(user, "certificate")) == []


def plugin(tmp_path, program, name="plugin"):
    file = tmp_path / name
    file.write_text(f"#!{sys.executable}\n{program}")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    api = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": api, "command": str(file), "interactiveMode": "Never"}}


@pytest.mark.kubernetes_client
def test_a_plugin_is_run_and_a_failing_one_is_named(kube, jobs_with, tmp_path):
    credential = {"token": kube.token_with([READ_JOBS])}
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    text = json.dumps(answer | {"status": credential})
    working = plugin(tmp_path, f"print({text!r})")
    assert jobs_with(kube.write_kubeconfig(working, "working")) == []
    failing = plugin(tmp_path, "import sys; sys.exit('please log in first')", "failing")
    with pytest.raises(UserError, match=r"plugin of the kubeconfig fails .*log in first\): "):
        jobs_with(kube.write_kubeconfig(failing, "failing"))


@pytest.mark.kubernetes_client
def test_a_token_file_that_is_renewed_is_read_again(kube, tmp_path):
    file = tmp_path / "token"
    file.write_text("expired")
    kubeconfig = kube.write_kubeconfig({"tokenFile": str(file)}, "renewed")
    api = Api(Connection(Target(str(kubeconfig), None, kube.namespace)))
    file.write_text(kube.token_with([READ_JOBS]))
    assert api.list_all(RAY_JOBS)["items"] == []


@pytest.mark.kubernetes_client
def test_an_expired_token_is_said_without_the_token(kube, jobs_with, capfd):
    with pytest.raises(UserError) as refused:
        jobs_with(kube.write_kubeconfig({"token": "secret-and-expired"}, "old"))
    assert "the token of user old is expired or wrong; log in again" in str(refused.value)
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


def test_several_files_are_merged_and_the_first_one_counts(fake_kubeconfig, tmp_path, monkeypatch):
    config = yaml.safe_load(fake_kubeconfig.read_text())
    config["contexts"][0] = {"name": "second", "context": {"cluster": "fake", "user": "admin"}}
    config["contexts"][0]["context"]["namespace"] = "elsewhere"
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(config | {"current-context": "none"}))
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


@pytest.mark.kubernetes_client
def test_no_kubeconfig_and_a_wrong_context_are_said(rlcar, kube, tmp_path, monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    code, out, err = rlcar("jobs", "list", "--kubernetes")
    assert code == 2
    assert "there is no kubeconfig: " in err
    assert "set KUBECONFIG, or use --kubeconfig" in err
    code, out, err = rlcar("jobs", "list", "--kubernetes", "--kubeconfig", "absent")
    assert (code, err) == (2, "error: --kubeconfig absent: there is no such file\n")
    context = yaml.safe_load(kube.kubeconfig.read_text())["current-context"]
    words = ("--kubeconfig", kube.kubeconfig, "--context", f"{context}x")
    code, out, err = rlcar("jobs", "list", "--kubernetes", *words)
    assert code == 2
    assert f"--context {context}x does not exist" in err
    assert f"did you mean '{context}'?" in err


@pytest.mark.kubernetes_client
def test_a_server_of_another_authority_or_without_tls_is_refused(kube, jobs_with, tmp_path):
    stranger = Authority(tmp_path, "stranger")
    from_stranger = {"certificate-authority": str(stranger.certificate)}
    kubeconfig = without_authority(kube.kubeconfig, tmp_path / "stranger.yaml", **from_stranger)
    with pytest.raises(UserError, match="certificate is not signed by the authority in the kubec"):
        jobs_with(kubeconfig)
    with pytest.raises(UserError, match="nothing listens at https://127.0.0.1:1 "):
        jobs_with(kube.write_kubeconfig({}, "closed", "https://127.0.0.1:1"))
    with pytest.raises(UserError, match="host name of https://no-such-host.invalid .* is unknown"):
        jobs_with(kube.write_kubeconfig({}, "unknown", "https://no-such-host.invalid"))
    with pytest.raises(UserError, match="the proxy on the way to .* fails"):
        jobs_with(kube.write_kubeconfig({}, "proxy", **{"proxy-url": "http://127.0.0.1:1"}))


@pytest.mark.kubernetes_client
def test_an_unverified_server_is_used_only_where_the_kubeconfig_says_so(kube, jobs_with, tmp_path):
    kubeconfig = without_authority(kube.kubeconfig, tmp_path / "insecure.yaml")
    with pytest.raises(UserError, match="no secure connection"):
        jobs_with(kubeconfig)
    insecure = {"insecure-skip-tls-verify": True}
    without_authority(kubeconfig, kubeconfig, **insecure)
    assert jobs_with(kubeconfig) == []
    assert not Connection(Target(str(kubeconfig))).verifies_tls
