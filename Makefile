# make book, make test: everything happens in this folder (.venv, .cache, _build). See `make help`.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
PORT ?= 8000
MINUTES ?= 60
ARGS ?=

RUN := $(VENV)/bin/python
CACHE := $(CURDIR)/.cache
# Tests compile thousands of small programs and run each once: without XLA's optimization, and by its older code
# for loops, compilation takes a sixth; in one piece, not 32 for threads that other workers need, a quarter less of
# that. Chapters and the newest row of `make compat` have users' settings.
ifndef OPTIMIZED
  QUICKLY := JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
    XLA_FLAGS="$$XLA_FLAGS --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
endif

# Settings of other tools stay out, and their caches come here.
unexport PYTHONPATH PYTHONHOME JUPYTER_PATH JUPYTER_CONFIG_PATH
# The environments come without bytecode, and what is imported is compiled once: it must be kept.
unexport PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX
export PYTHONNOUSERSITE := 1
export MPLCONFIGDIR := $(CACHE)/matplotlib
export IPYTHONDIR := $(CACHE)/ipython
export JUPYTER_CONFIG_DIR := $(CACHE)/jupyter/config
export JUPYTER_DATA_DIR := $(CACHE)/jupyter/data
export JUPYTER_RUNTIME_DIR := $(CACHE)/jupyter/runtime

# Pages and tests run two at a time. Threads of OpenBLAS that wait for each other then cost up to ten times the work.
export OPENBLAS_NUM_THREADS ?= 1

# What JAX compiles is kept in the user's cache folder; JAX_ENABLE_COMPILATION_CACHE=false switches that off.
ifndef JAX_COMPILATION_CACHE_DIR
  JAX_COMPILATION_CACHE_DIR := $(shell "$(PYTHON)" tools/compile_cache.py 2>/dev/null)
endif
ifneq ($(JAX_COMPILATION_CACHE_DIR),)
  export JAX_COMPILATION_CACHE_DIR
  export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
  export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES ?= -1
  # An entry that another process is just writing is compiled again, and that is all.
  export PYTHONWARNINGS := ignore:Error reading persistent compilation cache entry,ignore:Error writing persistent compilation cache entry
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env js book pdf serve lint test wheel matrix notebooks campaign compat torch autoattack nt-suite measure clean distclean

help:
	@echo "make book        install into .venv, execute every chapter, build _build/html/index.html"
	@echo "make pdf         print the built book, contents and all, into _build/html/ntk-robustness.pdf (needs Chromium)"
	@echo "make serve       show the built book on localhost (PORT=8000)"
	@echo "make test        lint, tests, doctests, checks of notebooks, site and pages in a browser;"
	@echo "                 OPTIMIZED=1: compiled with XLA's optimization, as users have it"
	@echo "make lint        ruff, and whether notebooks and addresses are up to date (seconds)"
	@echo "make wheel       build the wheel and use it from an empty environment"
	@echo "make matrix      the variants of checks that make test leaves out (makes the book first)"
	@echo "make notebooks   write the notebooks that Colab opens, from the chapters"
	@echo "make campaign    make runs of experiments that are not recorded, on one core (MINUTES=60)"
	@echo "make compat      the tests on the oldest and the newest JAX, each in its own environment (ARGS=...)"
	@echo "make torch       the tests that need PyTorch or Equinox, in an environment of their own"
	@echo "make autoattack  AutoAttack beside its PyTorch reference, in the same environment (ARGS=...)"
	@echo "make nt-suite    neural-tangents' own tests on this JAX (ARGS=...)"
	@echo "make measure     both commands in fresh clones; writes README's times, disk and memory"
	@echo "make clean       remove what was built; make distclean: .venv and .cache too"
	@echo "Another Python: make PYTHON=python3.13 book"

env:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { echo "There is no $(PYTHON) here: make PYTHON=... with a Python 3.11 to 3.13"; exit 1; }
	@"$(PYTHON)" tools/make_venv.py "$(VENV)"

js: env
	@$(RUN) tools/vendor_js.py

book: js
	@$(RUN) tools/build_book.py

pdf: book
	@$(RUN) tools/print_book.py

serve:
	@[ -e _build/html/index.html ] || $(MAKE) book
	@echo "http://localhost:$(PORT)  (Ctrl-C ends it)"; $(RUN) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

lint: env
	@status=0; \
	step() { echo "==> $$1"; shift; "$$@" || status=1; }; \
	step "Lint" $(RUN) -m ruff check .; \
	step "Format" $(RUN) -m ruff format --check .; \
	step "Names in the chapters" $(RUN) -m ruff check --isolated --select F821,F401 book/*.ipynb; \
	step "The notebooks are what the chapters say" $(RUN) tools/export_notebooks.py --check; \
	step "One repository address" $(RUN) tools/repository.py --check; \
	exit $$status

test: lint book
	@echo "==> Tests, doctests, notebooks, site and browser (minutes)"
	@$(QUICKLY) $(RUN) -m pytest -n $(WORKERS) --dist worksteal --doctest-modules tests companion $(ARGS)

wheel: env
	@$(RUN) tools/check_wheel.py

matrix: book
	@$(QUICKLY) $(RUN) -m pytest -n $(WORKERS) --dist worksteal -m matrix tests $(ARGS)

notebooks: env
	@$(RUN) tools/export_notebooks.py

campaign: env
	@nice -n 19 $(RUN) -m companion.experiments --profile full --cores 1 --minutes $(MINUTES) $(ARGS)

compat: env
	@$(RUN) tools/compat.py $(ARGS)

torch: env
	@$(RUN) tools/with_torch.py tests -n $(WORKERS) --dist worksteal $(ARGS)

autoattack: env
	@$(RUN) tools/with_torch.py agreement $(ARGS)

nt-suite: env
	@$(RUN) tools/nt_suite.py $(ARGS)

measure: env
	@$(RUN) tools/measure.py $(ARGS)

clean:
	@rm -rf _build .pytest_cache .ruff_cache .hypothesis *.egg-info
	@find book companion tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	@rm -rf "$(VENV)" .cache
