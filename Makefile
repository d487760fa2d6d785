# `make demo` and `make test` set everything up on a new machine; nothing else is needed.
PYTHON ?= python3
BIN = .venv/bin
SEED_CONFIG = configs/demo/aream_demo.py
BASELINE_CONFIG = configs/demo/no_aream_demo.py
SEG_CONFIG = configs/demo/deeplabv3plus_demo.py
CNN_WEIGHTS = data/demo_weights/tf_efficientnet_lite0.pth
# The second environment of docs/environments.md, which CI has not.
PYTHON_3_10 ?= python3.10
OPENMMLAB = .venv-openmmlab/bin

.PHONY: demo test test-openmmlab test-wheel bench lint format clean

# Rebuilt when a pinned version changes. torch goes first, so that no other package picks its version.
.venv/installed: requirements.txt pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $$(grep '^torch' requirements.txt)
	$(BIN)/pip install --quiet --requirement requirements.txt --editable '.[dev,demo]'
	touch $@

.venv-openmmlab/installed: tests/openmmlab/requirements.txt tests/openmmlab/_ext.py pyproject.toml setup.py
	$(PYTHON_3_10) -m venv .venv-openmmlab
	$(OPENMMLAB)/pip install --quiet --requirement tests/openmmlab/requirements.txt --editable .
	cp tests/openmmlab/_ext.py "$$($(OPENMMLAB)/python -c 'import mmcv; print(*mmcv.__path__)')"
	touch $@

$(CNN_WEIGHTS): .venv/installed
	$(BIN)/python tools/converters/efficientnet_lite0.py $@

demo: $(CNN_WEIGHTS)
	$(BIN)/python tools/draw_demo.py data/demo
	$(BIN)/python tools/train.py $(SEED_CONFIG)
	$(BIN)/python tools/train.py $(BASELINE_CONFIG) --resume
	$(BIN)/python tools/train.py $(SEG_CONFIG)
	$(BIN)/python tools/analysis/summary.py $(SEED_CONFIG) $(SEG_CONFIG) --baseline $(BASELINE_CONFIG) --out work_dirs/demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-openmmlab: .venv-openmmlab/installed
	$(OPENMMLAB)/python -m pytest -n 2 --dist worksteal

# The wheel in a new environment and an empty folder.
test-wheel: .venv/installed
	$(BIN)/python tests/proofs/wheel_project.py work_dirs/wheel_environment --requirements requirements.txt

bench: .venv/installed
	for part in step cam par; do $(BIN)/python benchmarks/$$part.py --growth --out work_dirs/bench/$$part.json || exit; done
	$(BIN)/python benchmarks/threshold_sweep.py --out work_dirs/bench/threshold_sweep.json
	$(BIN)/python benchmarks/zoo.py --out work_dirs/bench/zoo.json

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-openmmlab work_dirs data/demo data/demo_weights
