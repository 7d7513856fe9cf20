# make scan   a scan of a virtual patient that ends with a guarantee, with its report
# make test   everything that is checked before a change goes in
PYTHON ?= python3
VENV := .venv
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(VENV)/bin/pip install -q -c constraints.txt
NEEDS := pyproject.toml constraints.txt

.PHONY: scan test

scan: $(VENV)/.installed-run
	@out=runs/phantom-$$(date +%Y%m%d-%H%M%S) && $(VENV)/bin/spokewise scan phantom --vendor ge --policy guaranteed --out "$$out"

test: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest -q -n 2

$(VENV)/bin/pip:
	@$(PYTHON) -m venv $(VENV)

# torch first and alone: pip then keeps it while it settles the rest.
$(VENV)/.installed-run: $(NEEDS) | $(VENV)/bin/pip
	@echo "Installing into $(VENV); the first time takes minutes."
	@$(PIP) torch
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(NEEDS) | $(VENV)/bin/pip
	@echo "Installing into $(VENV); the first time takes minutes."
	@$(PIP) torch
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed-run
