# make demo    the whole chain on a small model: generate, build, adapt on the board, verify bit for bit
# make test    linters and all tests but the slow ones
# Both set themselves up first (scripts/setup.sh).

PYTHON := .venv/bin/python
C_FILES = $(shell find $(wildcard firmware_templates tests benchmarks examples) -name "*.[ch]")

# PlatformIO takes its build tool from the Python environment, and asks nobody anything.
export PLATFORMIO_CORE_DIR := $(CURDIR)/.venv/platformio
export PLATFORMIO_SETTING_ENABLE_TELEMETRY := no
export PLATFORMIO_SETTING_CHECK_PLATFORMIO_INTERVAL := 99999
# Tests run side by side: one thread each.
export OMP_NUM_THREADS := 1

.PHONY: help demo test test-fast test-slow fuzz bench bench-plan bench-ram bench-instructions lint format clean setup-demo setup-dev
.DEFAULT_GOAL := help

help:
	@echo "make demo       generate, build, adapt on the board, verify bit for bit"
	@echo "make test       linters and all tests but the slow ones"
	@echo "make test-fast  unit tests only"
	@echo "make test-slow  the tests that take more than a minute each"
	@echo "make fuzz       3,000 random networks, checked in every way there is"
	@echo "make bench      instructions of every kernel on every emulated core, against the committed ones; time beside PyTorch"
	@echo "make bench-plan RAM of networks that others publish figures for, beside theirs"
	@echo "make bench-ram  predicted and linked RAM of 20 models on three boards, to the byte"
	@echo "make bench-instructions  what kernels cost on the emulated cores, for the estimates of time"
	@echo "make lint       ruff, mypy, import-linter, clang-format, templates"
	@echo "make format     formats Python and C"
	@echo "make clean      removes what was built; keeps .venv and runs/"

demo: setup-demo
	@$(PYTHON) scripts/demo.py

test: lint
	@markers="not slow"; \
	if ! command -v qemu-system-arm >/dev/null; then \
		echo "test: no QEMU here: the tests on the emulated board are left out"; \
		markers="$$markers and not emulated"; \
	elif ! command -v qemu-system-riscv32 >/dev/null || ! command -v riscv64-unknown-elf-gcc >/dev/null; then \
		echo "test: no QEMU or no compiler for RISC-V here: the tests on that emulated board are left out"; \
		markers="$$markers and not riscv"; \
	fi; \
	echo "test: the slow tests are left out; run them with: make test-slow"; \
	$(PYTHON) -m pytest -q -n 2 -m "$$markers"

test-fast: setup-dev
	@$(PYTHON) -m pytest -q -n 2 -m unit

test-slow: setup-dev
	@$(PYTHON) -m pytest -q -m slow

fuzz: setup-dev
	@$(PYTHON) -m tests.fuzz

bench: setup-dev
	@$(PYTHON) -m benchmarks.kernels

bench-plan: setup-dev
	@$(PYTHON) -m benchmarks.plan

bench-ram: setup-dev
	@$(PYTHON) -m benchmarks.ram

bench-instructions: setup-dev
	@$(PYTHON) -m benchmarks.instructions_per_mac

lint: setup-dev
	@echo "lint: ruff check"; $(PYTHON) -m ruff check --quiet .
	@echo "lint: ruff format"; $(PYTHON) -m ruff format --quiet --check .
	@echo "lint: mypy"; $(PYTHON) -m mypy --no-error-summary
	@echo "lint: imports"; report=$$(.venv/bin/lint-imports --no-cache) || { echo "$$report"; exit 1; }
	@echo "lint: clang-format"; .venv/bin/clang-format --dry-run -Werror $(C_FILES)
	@echo "lint: templates"; $(PYTHON) scripts/check_templates.py

format: setup-dev
	@$(PYTHON) -m ruff check --quiet --fix .
	@$(PYTHON) -m ruff format --quiet .
	@.venv/bin/clang-format -i $(C_FILES)

clean:
	@rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

setup-demo:
	@scripts/setup.sh demo

setup-dev:
	@scripts/setup.sh dev
