# Two commands do all the set-up on a fresh machine: `make rehearse` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# More arguments for ansible-playbook, such as -v or -e ab_scores=scores.csv.
REHEARSAL_ARGS ?=
# More arguments for the lab's pytest: -m 'not long' leaves out what CI does, second cases of something.
LAB_ARGS ?=
# Without compiled files every process of a test compiles what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: rehearse rehearsal-up rehearsal-down lab-up lab-down lab-test lab-clean test lint unit control dev locks schemas clean

rehearse: control ## the whole benchmark on this machine, without a GPU
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/rehearse $(REHEARSAL_ARGS)

rehearsal-up: control ## start the rehearsal's services and leave them running
	@PATH="$(CURDIR)/$(BIN):$$PATH" ansible-playbook -i inventory/rehearsal playbooks/rehearsal.yml \
	  -e rehearsal_state=started $(REHEARSAL_ARGS)

rehearsal-down: control
	@PATH="$(CURDIR)/$(BIN):$$PATH" ansible-playbook -i inventory/rehearsal playbooks/rehearsal.yml \
	  -e rehearsal_state=stopped

test: lint unit rehearsal-test ## everything that can be tested without root, Docker and a GPU

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/yamllint --strict .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline --profile production

# More processes than cores: half of the time a test waits for a server or a process.
unit: dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -q -n 4 --dist worksteal tests/unit

rehearsal-test: dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -q tests/rehearsal

# The lab: both hosts as containers with systemd, sshd and a Docker engine; needs root and Debian or Ubuntu.
lab-up: control ## make and start it; what is missing is installed
	@$(BIN)/python scripts/lab up

lab-down: ## remove it; what was downloaded and built is kept
	@$(PYTHON) scripts/lab down

lab-clean: ## remove that too
	@$(PYTHON) scripts/lab clean

lab-test: dev ## what needs a real systemd, Docker or sshd, or a host that dies
	@$(BIN)/python scripts/lab up && PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -q tests/lab $(LAB_ARGS); \
	  status=$$?; $(BIN)/python scripts/lab down && exit $$status

# The control node's environment: Ansible and the Python half, from hashed locks.
control: $(VENV)/.control
dev: $(VENV)/.dev

$(VENV)/.control: files/locks/control.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing; next: apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$$($(PYTHON) --version) is too old, 3.11 is needed; next: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r files/locks/control.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.control files/locks/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r files/locks/dev.txt
	@touch $@

locks: ## make every lock anew (needs uv)
	$(MAKE) -C files/locks

schemas: control ## generate the JSON schemas of the documents that have a model
	$(BIN)/python -m understudy.documents

clean: ## remove what was installed and made here; runs are kept
	@if [ -e .lab ]; then $(PYTHON) scripts/lab clean; fi
	rm -rf $(VENV) .rehearsal
