# `make lab` to learn, `make test` to check everything: each first sets up what it needs, into $(VENV).
# Works with GNU make 3.81 and any POSIX shell.

VENV = .venv
PYTHON =
LAB_ARGS =

bin = $(VENV)/bin
code = rcnn_edu tests notebooks
notebooks = $(sort $(wildcard notebooks/*.ipynb))

.PHONY: help lab test check bench experiments notebooks clean

help: ## list the targets (the default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PYTHON=python3.12   the Python to set up with, 3.11 or newer; else the first that is found"
	@echo "  VENV=folder         where to set up, $(VENV) unless told"
	@echo "  LAB_ARGS='...'      more arguments for JupyterLab, such as --no-browser"

lab: $(VENV)/.lab ## open JupyterLab on the first notebook
	$(bin)/python -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS) \
		--ServerApp.root_dir=. --LabApp.default_url=/lab/tree/$(firstword $(notebooks))

test: $(VENV)/.test ## check everything: style, types, tests, notebooks, explorers in a browser
	$(bin)/ruff check $(code)
	$(bin)/ruff format --check $(code)
	$(bin)/python -m mypy
	$(bin)/python -m tests.browser.chromium --install
	OMP_NUM_THREADS=1 $(bin)/python -m pytest -q -n auto --dist loadfile -m "not browser" --cov
	$(bin)/python -m pytest -q --nbval --nbval-current-env --nbval-cell-timeout=300 \
		--nbval-sanitize-with=tests/notebooks/nbval_sanitize.cfg $(notebooks)
	$(bin)/python -m pytest -q -rs -m browser tests/browser
	$(bin)/python -m tests.browser.chromium

check: $(VENV)/.test ## the quick part of `make test`, for between two edits
	$(bin)/ruff check $(code)
	$(bin)/ruff format --check $(code)
	$(bin)/python -m mypy
	OMP_NUM_THREADS=1 $(bin)/python -m pytest -q -n auto --dist loadfile -m "not browser and not slow"

bench: $(VENV)/.test ## measure the operations and the detectors against torchvision's, for the README
	$(bin)/python -m tests.benchmarks
	$(bin)/python -m tests.benchmarks.readme

experiments: $(VENV)/.lab ## repeat every experiment whose results are not in data/results yet; about 2 hours for all
	for name in $$($(bin)/python -c 'from rcnn_edu.training import experiments; print(*experiments.names())'); do \
		$(bin)/python -m rcnn_edu experiment $$name || exit 1; \
	done

notebooks: $(VENV)/.test ## run every notebook from the top, in place, and clean it for a commit
	$(bin)/python -m tests.notebooks.execute $(notebooks)
	$(bin)/python -m tests.notebooks.pictures

clean: ## delete caches and test output; to set up anew, delete the folder .venv as well
	rm -rf .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build rcnn_edu.egg-info tests/output
	find $(code) -name __pycache__ -prune -exec rm -rf {} +

# A stamp tells what is installed, so that only a change of pyproject.toml installs anything again.
$(VENV)/.lab: pyproject.toml $(bin)/python
	$(bin)/python -m pip install --editable '.[lab]'
	touch $@

$(VENV)/.test: pyproject.toml $(bin)/python
	$(bin)/python -m pip install --editable '.[test]'
	touch $(VENV)/.lab $@

# A candidate is run before it is chosen: a name on PATH may be another version's, or lack venv (Debian's python3 does).
# The old links go first: where the Python that they led to is gone, venv would leave them as they are.
$(bin)/python:
	@for python in $(if $(PYTHON),$(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
		if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Setting up $(VENV) with $$python, `$$python --version`"; \
			rm -f $@ $@3; \
			exec $$python -m venv $(VENV); \
		fi; \
	done; \
	echo "$(if $(PYTHON),PYTHON=$(PYTHON) is not,Found no) Python 3.11 or newer that has venv." >&2; \
	echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; \
	exit 1
