import pytest

from rlcar.errors import ConfigError
from serve.settings import make_settings


def test_by_default_only_this_machine_can_connect():
    settings = make_settings()
    assert settings.is_loopback
    assert settings.host_names >= {"localhost", "127.0.0.1"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "car.example.org"])
def test_other_machines_need_authentication_or_a_word_of_consent(host):
    with pytest.raises(ConfigError, match="--allow-anonymous"):
        make_settings(host=host)
    assert make_settings(host=host, auth=True).host_names is None
    assert make_settings(host=host, allow_anonymous=True).host_names is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_needs_no_authentication(host):
    assert make_settings(host=host).is_loopback


def test_a_wrong_setting_is_named_with_its_value():
    with pytest.raises(ConfigError, match="port=99999"):
        make_settings(port=99999)
    with pytest.raises(ConfigError, match="prot"):
        make_settings(prot=1)
