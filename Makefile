# make demo and make test are all that a new user needs; both install into .venv first, once.

PYTHON ?= $(firstword $(foreach p,python3.12 python3.11 python3.10 python3 python,$(if $(shell $(p) -c 'import sys; print(int((3, 10) <= sys.version_info < (3, 13)))' 2>/dev/null | grep 1),$(p))))
BIN := .venv/bin
# A process of tests takes up to 4 GB, and compiles on one core: as many as there are, up to four. JOBS=0: no others.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n < 4 ? n : 4 )))
PYTEST := $(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile
SHELL_FILES := $(wildcard scripts/*.sh ascend310_infer/*.sh) .ci/run
CXX_FILES := $(wildcard ascend310_infer/src/*.cc ascend310_infer/src/*.h)

.PHONY: help demo test test-all check format runner clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "make %-10s %s\n", $$1, $$2}'

demo: .venv/runtime ## train, evaluate, export, run the C++ runner and compare, on the built-in digits
	@bash scripts/demo.sh

test: .venv/dev ## the tests
	@$(PYTEST)

test-all: .venv/dev ## the tests, the long ones too
	@$(PYTEST) -m ""

check: .venv/dev ## formatting, lint, shell and C++ style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/shellcheck -x $(SHELL_FILES)
	@$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: .venv/dev ## write Python and C++ in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(CXX_FILES)

runner: .venv/runtime ## fetch MindSpore Lite and build the C++ runner
	@bash scripts/fetch_mindspore_lite.sh
	@bash ascend310_infer/build.sh

clean: ## remove what was built and installed; runs in output/ stay
	rm -rf .venv .lite ascend310_infer/build ascend310_infer/out .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/runtime: requirements.txt
	@test -n "$(PYTHON)" || { echo "error: python: MindSpore 2.10 needs Python 3.10, 3.11 or 3.12, none was found" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev: requirements-dev.txt requirements-serve.txt .venv/runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@touch $@
