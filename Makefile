# Every target bootstraps its own virtual environment from a bare `python3` (3.11 to 3.13).
# ARGS passes options on: make train ARGS="--seed 7 --name x"

PYTHON ?= python3
UV_VERSION := 0.13.8
VENV := .venv
UV := $(VENV)/tools/bin/uv
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
# Apart: those that need an argument, a card, an environment of their own or an hour, and what others import.
APART := atari attack attack_report attack_soak attacks bench_sim campaign campaign_kills campaign_simulated chaos curriculum curriculum_kills delivery delivery_faults delivery_report delivery_rollouts delivery_simulated delivery_traffic drawn_model drift faulty_server fine_tuning fleet gpu_update header honest kernels lander load offline_choice offline_data offline_evaluation offline_learner offline_memory offline_page offline_parts offline_quality offline_speed operation own_tracks peers_learning pipeline results results_page rllib_loop self_play serving processes recording swaps timed_start watched_server
BENCHMARKS := $(filter-out $(APART:%=benchmarks/%.py),$(wildcard benchmarks/*.py))

.DEFAULT_GOAL := help
.PHONY: help setup train serve test test-rest test-long test-hosts test-chaos test-monitoring test-kubernetes test-image image audit sbom check docs fmt results bench bench-sim bench-serve bench-delivery bench-offline bench-pipeline attack attack-soak soak golden clean

help: ## shows this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## locked install with all development tools

# uv installs exactly what uv.lock says; it lives beside the environment that it fills. Bytecode is
# compiled here: Ray gives its processes 30 s to start, and a first import may take as long.
$(UV):
	$(PYTHON) -m venv $(VENV)
	$(PYTHON) -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): $(UV) pyproject.toml uv.lock
	UV_PROJECT_ENVIRONMENT=$(VENV) $(UV) sync --quiet --locked --compile-bytecode --extra cluster --extra serve
	touch $(STAMP)

# JAX's compiler for cards, without the card's libraries; apart, because beside JAX it would look for
# a driver in every process.
CUDA := .venv-cuda
$(CUDA): $(STAMP)
	version=$$($(RUN)/python -c "import jax; print(jax.__version__)"); \
	$(UV) pip install --quiet --python $(RUN)/python --target $(CUDA) --no-deps jax-cuda12-plugin==$$version jax-cuda12-pjrt==$$version
	touch $(CUDA)

train: $(STAMP) ## the main job: trains on this machine's own embedded Ray, then reports
	$(RUN)/rlcar train $(ARGS)

serve: $(STAMP) ## serves the champion, or the newest run, at http://127.0.0.1:8000
	$(RUN)/rlcar serve $(ARGS)

# CI adds some of `test-rest`, beside the others: make test ALSO="or ci".
ALSO ?=
# Three processes for two cores: two leave a third of them idle, in waits for programs of their own.
# Ray comes last, in two processes with a Ray each: beside more work it can miss its own start-up
# deadline of 30 s, which no setting changes. Only files with such tests are collected, as the imports
# of all files take half a minute.
WITH_RAY = $$(grep -rl --include='test_*.py' 'mark[.]ray' tests)
test: $(STAMP) $(CUDA) ## the tests, with Ray and end to end, in about half an hour on two cores
	$(RUN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --timeout 400 -m "not (ray or chaos or kubernetes or long or image) $(ALSO)" $(ARGS)
	$(RUN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --timeout 300 -m "ray and not long" $(WITH_RAY) $(ARGS)

test-rest: $(STAMP) $(CUDA) ## what takes longest without Ray: every command of the README and the docs, Pong, campaigns
	$(RUN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --timeout 1200 -m "long and not ray" $(ARGS)

test-long: $(STAMP) ## what takes longest with Ray: redeploys under load, sweeps that are killed, nodes that come and go
	$(RUN)/pytest -m "ray and long" --timeout 600 $(ARGS)

test-monitoring: $(STAMP) ## alerts and dashboards with a real Prometheus: trainings that stall, diverge and fill a disk
	$(RUN)/pytest -m long --timeout 900 tests/deploy/monitoring $(ARGS)

test-hosts: $(STAMP) ## hosts without Kubernetes: units, install, setup and launch scripts, SSH, nginx, and kill -9 under supervisor, in some minutes
	$(RUN)/pytest --timeout 900 tests/deploy/test_systemd_units.py tests/deploy/test_host_*.py tests/deploy/test_nginx_site.py tests/deploy/test_supervisor.py tests/system/ssh $(ARGS)

CHAOS ?= short
test-chaos: $(STAMP) ## a training on three hosts of network namespaces; CHAOS=full for the long form
	CHAOS=$(CHAOS) $(RUN)/pytest -m chaos tests/chaos $(ARGS)

image: ## builds the container image; ARGS="--variant gpu", "--base IMAGE@DIGEST", "--tag NAME"
	$(PYTHON) deploy/image/build.py $(ARGS)

test-image: $(STAMP) ## builds the image; trains, serves, drives and stops in it; needs podman or docker
	$(RUN)/pytest -m image tests/deploy/image --timeout 3600 $(ARGS)

audit: $(UV) ## compares the image's locked packages with the known vulnerabilities
	$(PYTHON) deploy/image/audit.py --uv $(UV) $(ARGS)

sbom: $(UV) ## lists what is in the built image, as CycloneDX, in dist/rlcar-sbom.cdx.json
	$(UV) run --quiet --no-project --with 'cyclonedx-python-lib[json-validation]==11.12.0' deploy/image/sbom.py $(ARGS)

# RLCAR_KUBERNETES_LOGS names the folder of the pods' logs where a simulated kubelet runs the pods.
test-kubernetes: $(STAMP) ## manifests and client on the cluster in KUBECONFIG, or the client on our fake API server
	RLCAR_KUBERNETES_TESTS=$(if $(KUBECONFIG),1) $(RUN)/pytest -m "kubernetes or kubernetes_client" --timeout 900 tests/k8s tests/cluster/jobs/kubernetes tests/cluster/doctor $(ARGS)

check: $(STAMP) ## format, lint, types, import law, lock file; writes nothing
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/lint-imports
	$(RUN)/mypy
	$(UV) lock --check --quiet

docs: $(STAMP) ## builds the documentation into docs/_build/html; a warning or a dead link is an error
	rm -rf docs/_build
	$(RUN)/python -m sphinx -b html --fail-on-warning --keep-going --quiet -d docs/_build/doctrees docs docs/_build/html
	$(RUN)/python -m docs._generate.check_site docs/_build/html

fmt: $(STAMP) ## formats and mends what can be mended
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

results: $(STAMP) ## the tables of docs/results.md: hours, goes on where it was stopped
	$(RUN)/python benchmarks/results.py classic
	$(RUN)/python benchmarks/results.py grand-prix

bench: $(STAMP) ## the benchmarks; each prints `figure name=value` lines
	for file in $(BENCHMARKS); do echo "== $$file"; $(RUN)/python $$file || exit 1; done

bench-sim: $(STAMP) ## our simulator beside those of others, installed into .venv-bench
	test -x .venv-bench/bin/python || $(UV) venv --quiet .venv-bench
	$(UV) pip install --quiet --python .venv-bench/bin/python -r benchmarks/peers/requirements.txt
	$(RUN)/python benchmarks/bench_sim.py

bench-serve: $(STAMP) ## the serving lanes beside Starlette, LitServe and BentoML, in some minutes
	test -x .venv-bench-serve/bin/python || $(UV) venv --quiet .venv-bench-serve
	$(UV) pip install --quiet --python .venv-bench-serve/bin/python -r benchmarks/peers/serving_requirements.txt
	RAY_AUTH_MODE=disabled $(RUN)/python benchmarks/serving.py
	$(RUN)/python benchmarks/swaps.py
	$(RUN)/python benchmarks/recording.py

bench-delivery: $(STAMP) ## rollouts under load, and the time to rollback of faulty candidates; goes on where it was stopped
	$(RUN)/python benchmarks/delivery.py $(ARGS)

# UV_TORCH_BACKEND=cpu installs a smaller torch, without CUDA.
bench-offline: $(STAMP) ## what is learned from recorded data, beside d3rlpy in .venv-bench-offline; goes on where it was stopped
	test -x .venv-bench-offline/bin/python || $(UV) venv --quiet .venv-bench-offline
	$(UV) pip install --quiet --python .venv-bench-offline/bin/python -r benchmarks/peers/offline_requirements.txt
	$(RUN)/python benchmarks/offline_quality.py
	$(RUN)/python benchmarks/offline_choice.py
	$(RUN)/python benchmarks/offline_speed.py
	$(RUN)/python benchmarks/offline_evaluation.py
	$(RUN)/python benchmarks/offline_memory.py

bench-pipeline: $(STAMP) ## a pipeline promotes a better candidate and stops two bad ones, in some minutes
	$(RUN)/python benchmarks/pipeline.py

attack: $(STAMP) ## honest clients of a server under attack, in half an hour; ARGS="--lane realtime" for one lane
	$(RUN)/python benchmarks/attack.py $(ARGS)

attack-soak: $(STAMP) ## half an hour of honest and hostile traffic: does the server lose memory or files?
	$(RUN)/python benchmarks/attack_soak.py $(ARGS)

soak: $(STAMP) ## training, server and live page together for an hour: what grows, what slows down?
	$(RUN)/rlcar soak $(ARGS)

golden: $(STAMP) ## rewrites tests/golden; review its diff like code
	RLCAR_UPDATE_GOLDEN=1 $(RUN)/pytest -q -k "golden or recorded_races or the_same_tracks or the_rules_for_kubernetes"
	git diff --stat -- tests/golden deploy/monitoring

clean: ## removes the environment and caches, never runs/
	rm -rf $(VENV) $(CUDA) .venv-bench .venv-bench-serve .venv-bench-offline .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis docs/_build
