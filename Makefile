# Each Python version gets an environment of its own, .venv-<version>, which is installed again when pyproject.toml
# changes: `make test PYTHON=python3.13` leaves that of `make test` alone.

PYTHON ?= python3
PYTEST_ARGS ?=

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv-$(VERSION)
GPU_VENV := .venv-$(VERSION)-gpu

# A file stays with one worker, since its tests share compiled programs. Programs compiled before are read from build/.
# Threads of numpy's own linear algebra would spend more on waiting for each other than on the small arrays of tests.
PYTEST = -m pytest -q -n auto --maxprocesses 2 --dist loadfile --timeout 600
COMPILED = JAX_COMPILATION_CACHE_DIR="$(CURDIR)/build/compiled-$(VERSION)" \
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1 \
  OPENBLAS_NUM_THREADS=1

# A pytest that finds no test to run ends with 5: PYTEST_ARGS may name tests of one kind only.
# Most test programs run once, and compiling them takes most of the time: XLA compiles them without optimisation. Those
# marked "optimized" are compiled as a user's programs are. `make test QUICK=` compiles all of them so.
QUICK ?= --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true \
  --xla_cpu_parallel_codegen_split_count=1 $(NO_EMITTERS)
# A flag that saves most of it, where this jaxlib has it: XLA ends a process that names an unknown one.
NO_EMITTERS = $(shell XLA_FLAGS=$(EMITTERS)=false $(VENV)/bin/python -c 'import jax; jax.devices()' 2>&1 >/dev/null \
  | grep -q 'Unknown flag' || echo $(EMITTERS)=false)
EMITTERS = --xla_cpu_use_fusion_emitters

# Versions after the first, in CI: without the tests marked "once", which do not turn on the compiler that JAX brings or
# are further cases of one that does.
AND_NOT_ONCE = $(if $(filter other,$(VERSIONS)), and not once)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo digits cats shift tables sentiment posteriors control chain verdict ranks test test-all lint types docs speed gpu clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.13           another interpreter, 3.11 to 3.13 (now: $(PYTHON), $(or $(VERSION),not found))"
	@echo "  PYTEST_ARGS='-k gaussians'  more options for pytest"

demo: $(VENV)/.installed-benchmarks  ## from source weights to target predictions on digits: a table, a figure, result rows
	@$(VENV)/bin/python -m benchmarks.run digits --demo

digits: $(VENV)/.installed-benchmarks  ## the full grid behind the demo
	@$(VENV)/bin/python -m benchmarks.run digits

cats: $(VENV)/.installed-benchmarks  ## cats against dogs from ImageNet weights, short version; needs BAYESTL_DATA_DIR
	@$(VENV)/bin/python -m benchmarks.run cats_vs_dogs --demo

shift: $(VENV)/.installed-benchmarks  ## CIFAR-10 behind JPEG compression, short version; needs BAYESTL_DATA_DIR
	@$(VENV)/bin/python -m benchmarks.run cifar_shift --demo

tables: $(VENV)/.installed-benchmarks  ## the field's tables, published numbers beside ours; needs BAYESTL_DATA_DIR
	@for task in uci shift fewshot; do $(VENV)/bin/python -m benchmarks.run $$task || exit 1; done

sentiment: $(VENV)/.installed-benchmarks  ## sentences: word vectors and film reviews as sources; needs BAYESTL_DATA_DIR
	@$(VENV)/bin/python -m benchmarks.run sentiment

posteriors: $(VENV)/.installed-benchmarks  ## every posterior around one prior, against NUTS; needs BAYESTL_DATA_DIR
	@$(VENV)/bin/python -m benchmarks.run posteriors

control: $(VENV)/.installed-benchmarks  ## CartPole under other physics, from published policies; needs BAYESTL_DATA_DIR
	@$(VENV)/bin/python -m benchmarks.run control

chain: $(VENV)/.installed-benchmarks  ## tasks one after another: split and permuted digits, against joint training
	@$(VENV)/bin/python -m benchmarks.chain_of_tasks

verdict: $(VENV)/.installed-benchmarks  ## how often the verdict on a source is right, on targets whose answer is known
	@$(VENV)/bin/python -m benchmarks.verdict_calibration

ranks: $(VENV)/.installed-benchmarks  ## do scores rank sources as fine-tuning does; needs BAYESTL_DATA_DIR
	@$(VENV)/bin/python -m benchmarks.rank_sources

test: $(VENV)/.installed-test  ## every law once, the examples in docstrings and documents among them
	@$(COMPILED) $(VENV)/bin/python $(PYTEST) -m "optimized and not slow$(AND_NOT_ONCE)" $(PYTEST_ARGS) || [ $$? -eq 5 ]
	@$(COMPILED) XLA_FLAGS="$(XLA_FLAGS) $(QUICK)" \
	  $(VENV)/bin/python $(PYTEST) -m "not optimized and not slow$(AND_NOT_ONCE)" $(PYTEST_ARGS) || [ $$? -eq 5 ]

test-all: $(VENV)/.installed-test  ## all tests, the exhaustive grids and those that take minutes among them
	@$(COMPILED) $(VENV)/bin/python $(PYTEST) --timeout 3600 $(PYTEST_ARGS)

lint: $(VENV)/.installed-lint  ## ruff: rules and format
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

types: $(VENV)/.installed-lint $(VENV)/.installed-test  ## pyright over the package and the benchmarks
	@$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

docs: $(VENV)/.installed-docs  ## the documents as a web site in build/docs; a broken link or a missing name is an error
	@# Not --quiet, which would hide the warnings that --strict is to find.
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "build/docs/index.html is ready"

speed: $(VENV)/.installed-benchmarks  ## step times against hand-written loops
	@$(VENV)/bin/python -m benchmarks.speed

gpu: $(GPU_VENV)/.installed-test,gpu  ## the demo, the conformance tests and the speed benchmark on an NVIDIA GPU
	@$(GPU_VENV)/bin/python -c 'import sys, jax; print("devices:", *jax.devices()); \
	  sys.exit(None if jax.default_backend() == "gpu" else "make gpu: JAX found no GPU on this machine")'
	@$(GPU_VENV)/bin/python -m benchmarks.run digits --demo
	@$(GPU_VENV)/bin/python -m pytest -q -k conformance --timeout 600 $(PYTEST_ARGS)
	@$(GPU_VENV)/bin/python -m benchmarks.speed --out benchmarks/results/speed-gpu.jsonl
	@$(GPU_VENV)/bin/python -m benchmarks.speed resnet50 --out benchmarks/results/speed-gpu.jsonl

clean:  ## remove environments, caches and built documents
	rm -rf .venv-* build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -------------------------------------------------------------------------------------------------- environments

define check_python
@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
  echo "bayestl needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is $(or $(VERSION),not there);" >&2; \
  echo "name one that you have: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
  echo "'$(PYTHON)' cannot make virtual environments: its modules venv and ensurepip are missing;" >&2; \
  echo "on Debian and Ubuntu: apt install python$(VERSION)-venv" >&2; exit 1; }
endef

$(VENV)/.created $(GPU_VENV)/.created:
	$(check_python)
	@echo "Making the virtual environment $(@D) ..."
	@$(PYTHON) -m venv $(@D)
	@touch $@

# The stem of the stamp names the extras: .installed-test holds bayestl[test].
$(VENV)/.installed-%: pyproject.toml | $(VENV)/.created
	@echo "Installing bayestl[$*] into $(VENV); the first time this takes a minute or two ..."
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(GPU_VENV)/.installed-%: pyproject.toml | $(GPU_VENV)/.created
	@echo "Installing bayestl[$*] into $(GPU_VENV); the CUDA libraries are a few gigabytes ..."
	@$(GPU_VENV)/bin/python -m pip install -qq --disable-pip-version-check --editable '.[$*]'
	@touch $@
