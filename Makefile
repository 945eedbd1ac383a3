# One target for each routine task; `make` without a target lists them.
# All paths are relative, so the path of the checkout may contain spaces. GNU make 3.81 (macOS) is sufficient.

PYTHON ?=
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python -m
# Written at the end of the setup: if the setup is interrupted, the file is missing, and the next setup starts from scratch.
STAMP := $(VENV)/.complete
BENCH := .venv-bench
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.PHONY: help setup lab book book-serve slides test bench models robust lint format pins publish clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-17s %s\n", $$1, $$2 }'
	@echo 'ARGS="…" passes options to the command:  make lab ARGS="--no-browser --port=9999"    make test ARGS="-k ppca"'

setup: $(STAMP) ## build .venv and install everything (once; PYTHON=python3.12 selects the Python)

# A complete .venv is updated in place; otherwise .venv is built from scratch.
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
	    echo "setup: needs Python 3.11 or newer, but $${first:-no $$* was found}. Install it (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python) or give its path: make setup PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	    echo "setup: $$python is $$version but lacks venv. Install venv (Debian, Ubuntu: apt install python$$version-venv) or give the path of another Python: make setup PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	if [ -f $(STAMP) ] && $(RUN) pip --version >/dev/null 2>&1; then \
	    echo "setup: the pinned versions have changed; updating .venv (up to a minute)"; \
	    rm -f $(STAMP); \
	else \
	    echo "setup: building .venv with $$python ($$version), only once: about 0.3 GB to download, 1.4 GB on disk, one to five minutes"; \
	    "$$python" -m venv --clear $(VENV); \
	fi; \
	$(RUN) pip install --disable-pip-version-check --no-input --only-binary=:all: -r requirements.txt; \
	$(RUN) pip install --disable-pip-version-check --no-input --quiet --no-deps --no-build-isolation -e .; \
	touch $(STAMP); \
	echo "setup: done. Run make lab to open the lectures, make test to run the tests"

lab: $(STAMP) ## open the lectures in JupyterLab (this machine only, with a token)
	@echo "lab: starting JupyterLab in notebooks/ (a few seconds); press Ctrl-C twice to stop it"
	@exec env PYTHONSTARTUP="$(CURDIR)/cmog_lib/classroom/resume.py" $(RUN) jupyterlab --ServerApp.root_dir=notebooks --ServerApp.ip=127.0.0.1 \
	    --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
	    --LabApp.extension_manager=readonly \
	    $$([ "$$(id -u)" != 0 ] || echo --allow-root) $(ARGS)

# Executed lectures are kept in build/executed until the lecture's code or a module that it uses changes.
book: $(STAMP) ## build the book and its slides in build/book; runs each changed lecture, which takes minutes
	@$(RUN) book

book-serve: book ## build the book and serve it to this machine only; ARGS=9999 sets the port
	@exec $(RUN) http.server --bind 127.0.0.1 --directory build/book $(ARGS)

slides: $(STAMP) ## build only the slides, in build/book/slides; open index.html there
	@$(RUN) book slides

# The library's tests run first, with one process per core. Then the lectures run, three at a time to limit memory, in new processes.
# The browser tests run last: they show what the lectures printed, one process in the book and one in JupyterLab.
# All three parts run even if one fails; Ctrl-C stops them all.
LECTURES = tests/test_notebooks.py
ALL_TESTS = trap 'exit 130' INT; failed=; \
    $(RUN) pytest --ignore=tests/browser --ignore=$(LECTURES) --numprocesses=auto || failed="$$failed library"; \
    $(RUN) pytest $(LECTURES) --numprocesses=3 || failed="$$failed lectures"; \
    $(RUN) pytest --numprocesses=2 tests/browser || failed="$$failed browser"; \
    if [ -n "$$failed" ]; then echo "test: these parts failed:$$failed" >&2; exit 1; fi
test: $(STAMP) ## run all tests, or those that ARGS selects
	@$(if $(ARGS),$(RUN) pytest $(ARGS),$(ALL_TESTS))

# The peers may need packages that the lectures do not use, so they have a separate environment, with the same pinned versions.
bench: $(BENCH)/.complete ## compare the library's speed with that of its peers; ARGS selects benchmarks
	@$(BENCH)/bin/python -m benchmarks $(ARGS)

$(BENCH)/.complete: benchmarks/requirements.txt requirements.txt $(STAMP)
	@echo "bench: building $(BENCH), only once: 1.6 GB on disk, a few minutes"
	@$(RUN) venv --clear $(BENCH)
	@$(BENCH)/bin/python -m pip install --disable-pip-version-check --no-input --quiet --only-binary=:all: -r benchmarks/requirements.txt
	@touch $@

# CMOG_MODELS sets another folder, to which the models are written and from which the lectures load them.
models: $(STAMP) ## train the models that the lectures load, about twenty minutes; ARGS="--key 1" changes the random key
	@$(RUN) cmog_lib.classroom.course $(ARGS)

# Results are kept in build/robust.jsonl. ARGS="--seeds 1 2 --lectures 5" runs a part, and --jobs 2 runs two lectures at a time.
robust: $(STAMP) ## run all lectures with eight seeds, three instruction sets and one core (hours), and list failing claims
	@$(VENV)/bin/python tests/robust.py $(ARGS)

lint: $(STAMP) ## check style and types as CI does: ruff, mypy, no outputs in notebooks
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy
	@$(if $(NOTEBOOKS),$(RUN) nbstripout --keep-id --verify $(NOTEBOOKS))

format: $(STAMP) ## fix style, format the code, and strip outputs from notebooks
	@$(RUN) ruff check --fix-only
	@$(RUN) ruff format
	@$(if $(NOTEBOOKS),$(RUN) nbstripout --keep-id $(NOTEBOOKS))

# uv, in a temporary environment, resolves the versions for all systems. Pins that still fit are kept; ARGS=--upgrade updates them.
pins: $(STAMP) ## resolve the version ranges of pyproject.toml into requirements.txt
	@set -e; \
	echo "pins: resolving versions for Linux, macOS and Windows (up to a minute)"; \
	work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	$(RUN) venv "$$work/venv"; \
	"$$work/venv/bin/python" -m pip install --disable-pip-version-check --no-input --quiet uv; \
	cp requirements.txt "$$work/requirements.txt"; \
	"$$work/venv/bin/python" -m uv pip compile pyproject.toml --quiet --universal --fork-strategy fewest \
	    --python-version 3.11 --all-extras --no-annotate --no-header --no-emit-index-url --output-file "$$work/requirements.txt" $(ARGS); \
	{ sed -n '/^#/p' requirements.txt; cat "$$work/requirements.txt"; } > "$$work/new"; \
	cp "$$work/new" requirements.txt; \
	echo "pins: requirements.txt is written; make test checks it against pyproject.toml"

# Adds the clone command and the Colab and Binder links if URL is given, and removes them if it is empty. Only the
# project's address changes in pyproject.toml, so .venv stays up to date.
publish: $(STAMP) ## write the project's public address wherever it is needed: URL=https://github.com/OWNER/NAME; URL= takes it out
	@$(if $(filter command,$(origin URL)),,$(error publish: give URL=https://github.com/OWNER/NAME, or URL= to take the address out))
	@$(RUN) book.publish "$(URL)"
	@touch $(STAMP)

clean: ## remove .venv, .venv-bench, build/ and caches
	@rm -rf $(VENV) $(BENCH) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	@find cmog_lib tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
