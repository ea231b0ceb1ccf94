"""A program for ray_servers.py: serves on its own Ray and redeploys for each line it reads.

python -m tests.serve.ray_server REGISTRY PORT REPLICAS
"""

import sys

from serve.lanes.ray_serve import APPLICATION, ray_serve
from serve.settings import make_settings


def main(registry: str, port: int, replicas: int) -> None:
    settings = make_settings(
        registry=registry,
        port=port,
        poll_s=0.2,
        session_expiry_s=600.0,
        min_replicas=replicas,
        max_replicas=replicas,
    )
    with ray_serve(settings):
        from ray import serve

        from serve.app import build

        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for number, _ in enumerate(sys.stdin):
            # Another setting is another code version: every replica is replaced.
            changed = settings.model_copy(update={"session_expiry_s": 700.0 + number})
            serve.run(build(changed), name=APPLICATION, route_prefix="/")
            sys.stdout.write("ready\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
