# Everything that is done by hand here, one word each; `make` alone lists the words.
# Relative paths only, so that a checkout whose own path has a space works; GNU make 3.81 (macOS) is enough.

PYTHON ?=
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python -m
# Written last: a setup that was interrupted leaves none, and starts again from nothing.
STAMP := $(VENV)/.complete
BENCH := .venv-bench
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.PHONY: help setup lab book book-serve slides test bench models robust lint format pins clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-14s %s\n", $$1, $$2 }'
	@echo 'ARGS="…" is passed on:  make lab ARGS="--no-browser --port=9999"    make test ARGS="-k ppca"'

setup: $(STAMP) ## build .venv with everything in it (once; PYTHON=python3.12 chooses the Python)

# A finished .venv is brought up to date in place; anything else is built from nothing.
$(STAMP): requirements.txt pyproject.toml
	@set -e; \
	if [ -n "$(PYTHON)" ]; then set -- "$(PYTHON)"; else set -- python3 python3.14 python3.13 python3.12 python3.11 python; fi; \
	first=; python=; \
	for candidate in "$$@"; do \
	    if version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))' 2>/dev/null); \
	    then python=$$candidate; break; fi; \
	    if [ -z "$$first" ] && [ -n "$$version" ]; then first="$$candidate is $$version"; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "setup: needs Python 3.11 or newer, but $${first:-no $$* was found}. Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python) or name one: make setup PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	    echo "setup: $$python is $$version but lacks venv. Install it (Debian, Ubuntu: apt install python$$version-venv) or name another Python: make setup PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	if [ -f $(STAMP) ] && $(RUN) pip --version >/dev/null 2>&1; then \
	    echo "setup: the pins have changed, bringing .venv up to date (seconds to a minute)"; \
	    rm -f $(STAMP); \
	else \
	    echo "setup: building .venv with $$python ($$version): about 0.3 GB to download, 1.4 GB on disk, one to five minutes, once"; \
	    "$$python" -m venv --clear $(VENV); \
	fi; \
	$(RUN) pip install --disable-pip-version-check --no-input --only-binary=:all: -r requirements.txt; \
	$(RUN) pip install --disable-pip-version-check --no-input --quiet --no-deps --no-build-isolation -e .; \
	touch $(STAMP); \
	echo "setup: done. make lab opens the lectures, make test runs the tests"

lab: $(STAMP) ## open the lectures in JupyterLab (this machine only, with a token)
	@echo "lab: starting JupyterLab on notebooks/, a few seconds; Ctrl-C twice stops it"
	@exec env PYTHONSTARTUP="$(CURDIR)/cmog_lib/classroom/resume.py" $(RUN) jupyterlab --ServerApp.root_dir=notebooks --ServerApp.ip=127.0.0.1 \
	    --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
	    --LabApp.extension_manager=readonly \
	    $$([ "$$(id -u)" != 0 ] || echo --allow-root) $(ARGS)

# What has run is kept in build/executed until the lecture's code, or a module that it uses, has changed.
book: $(STAMP) ## build the book and its slides into build/book: runs the lectures that have changed, minutes each
	@$(RUN) book

book-serve: book ## build it and show it, to this machine only; ARGS=9999 chooses the port
	@exec $(RUN) http.server --bind 127.0.0.1 --directory build/book $(ARGS)

slides: $(STAMP) ## the slides of the book alone, in build/book/slides: open index.html there
	@$(RUN) book slides

# All of them: a file at a time on each core; then the lectures, three at a time for the sake of memory, by processes that
# hold nothing yet; then the browser's, alone because they measure.
# All three run even if one fails; Ctrl-C stops them all.
LECTURES = tests/test_notebooks.py
ALL_TESTS = trap 'exit 130' INT; failed=; \
    $(RUN) pytest --ignore=tests/browser --ignore=$(LECTURES) --numprocesses=auto || failed="$$failed library"; \
    $(RUN) pytest $(LECTURES) --numprocesses=3 || failed="$$failed lectures"; \
    $(RUN) pytest tests/browser || failed="$$failed browser"; \
    if [ -n "$$failed" ]; then echo "test: these parts failed:$$failed" >&2; exit 1; fi
test: $(STAMP) ## run the tests, or those that ARGS choose
	@$(if $(ARGS),$(RUN) pytest $(ARGS),$(ALL_TESTS))

# The peers may ask for what the lectures have no use for: they get an environment of their own, at the same versions.
bench: $(BENCH)/.complete ## measure the library beside its peers, all rows or those of ARGS
	@$(BENCH)/bin/python -m benchmarks $(ARGS)

$(BENCH)/.complete: benchmarks/requirements.txt requirements.txt $(STAMP)
	@echo "bench: building $(BENCH): 1.6 GB on disk, a few minutes, once"
	@$(RUN) venv --clear $(BENCH)
	@$(BENCH)/bin/python -m pip install --disable-pip-version-check --no-input --quiet --only-binary=:all: -r benchmarks/requirements.txt
	@touch $@

# CMOG_MODELS names another folder, to write to and to run the lectures with.
models: $(STAMP) ## train the models that the lectures load, about twenty minutes; ARGS="--key 1" for others
	@$(RUN) cmog_lib.classroom.course $(ARGS)

# What has run is kept in build/robust.jsonl: ARGS="--seeds 1 2 --lectures 5" runs a part, and --jobs 2 two at a time.
robust: $(STAMP) ## run all lectures with eight seeds, on three instruction sets, on one core: hours; lists failing claims
	@$(VENV)/bin/python tests/robust.py $(ARGS)

lint: $(STAMP) ## what CI asks of the text: ruff, mypy, notebooks without outputs
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy
	@$(if $(NOTEBOOKS),$(RUN) nbstripout --keep-id --verify $(NOTEBOOKS))

format: $(STAMP) ## put the text into that form
	@$(RUN) ruff check --fix-only
	@$(RUN) ruff format
	@$(if $(NOTEBOOKS),$(RUN) nbstripout --keep-id $(NOTEBOOKS))

# uv, in a throw-away environment, resolves once for all systems; the pins that still fit are kept (ARGS=--upgrade renews them).
pins: $(STAMP) ## resolve pyproject.toml's ranges into requirements.txt again
	@set -e; \
	echo "pins: resolving for Linux, macOS and Windows, seconds to a minute"; \
	work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	$(RUN) venv "$$work/venv"; \
	"$$work/venv/bin/python" -m pip install --disable-pip-version-check --no-input --quiet uv; \
	cp requirements.txt "$$work/requirements.txt"; \
	"$$work/venv/bin/python" -m uv pip compile pyproject.toml --quiet --universal --fork-strategy fewest \
	    --python-version 3.11 --all-extras --no-annotate --no-header --no-emit-index-url --output-file "$$work/requirements.txt" $(ARGS); \
	{ sed -n '/^#/p' requirements.txt; cat "$$work/requirements.txt"; } > "$$work/new"; \
	cp "$$work/new" requirements.txt; \
	echo "pins: requirements.txt is written; make test holds it to pyproject.toml"

clean: ## remove .venv and the tools' caches
	@rm -rf $(VENV) $(BENCH) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	@find cmog_lib tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
