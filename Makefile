# Every habit has a target; `make help` lists them.
.DEFAULT_GOAL := help
BIN := .venv/bin
OUTPUT ?= output
CONFIG ?= configs/ml-latest-small.yaml
export TF_USE_LEGACY_KERAS := 1
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help setup demo test lint unit format notebook lock clean

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## Create .venv from the lock file that fits this machine
	@tools/bootstrap.sh

demo: setup ## Run the pipeline on the sample, then ask the served model for recommendations
	@$(BIN)/bivrec run --config $(CONFIG) --output $(OUTPUT)
	@$(BIN)/python tools/demo.py --config $(CONFIG) --output $(OUTPUT)

test: lint unit ## Lint and test everything

lint: setup ## Style, types, which package may import which, and the manifests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/validate_manifests.py

unit: setup ## Run all tests
	@$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

format: setup ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

notebook: setup ## Run the notebook again and keep its outputs
	@$(BIN)/python tools/run_notebook.py notebooks/quickstart.ipynb

lock: setup ## Compile the two lock files from setup.py
	@$(BIN)/uv pip compile setup.py --extra all --extra dev --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_39 --overrides requirements/overrides.txt \
	  --no-emit-index-url --custom-compile-command "make lock" --upgrade --quiet \
	  --output-file requirements/lock-glibc-2.39.txt
	@$(BIN)/uv pip compile setup.py --extra all --extra dev --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --overrides requirements/overrides.txt \
	  --overrides requirements/overrides-older-glibc.txt \
	  --no-emit-index-url --custom-compile-command "make lock" --upgrade --quiet \
	  --output-file requirements/lock-older-glibc.txt

clean: ## Remove what runs and tests left behind
	rm -rf $(OUTPUT) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
