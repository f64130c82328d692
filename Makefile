# Everything a developer or an administrator does with a checkout. `make` alone says what there is.

SHELL := /bin/sh
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help demo test quick check lint audit format bench fuzz soak clean

help: ## say what there is (the default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

include setup.mk install.mk deb.mk

demo: .venv .cache/debian ## see a prefix delegated, bound, renumbered and answering, in a network of its own
	@.venv/bin/python -m tests.lab.demo

# The tests start hundreds of our programs, and each would compile all of it.
PYTEST = env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m pytest

# Only root can lay out another Debian, as only root can boot it.
DEBIAN13 := $(if $(filter 0,$(shell id -u)),.cache/debian13)
test: check .cache/debian .cache/wheels .cache/lintian .cache/services $(DEBIAN13) ## run every check and every test, with real DHCPv6 server and client
	$(PYTEST) --numprocesses=auto

quick: lint ## ruff, mypy, shellcheck, and the tests that start no other program: an answer within a minute
	$(PYTEST) --numprocesses=$(shell nproc) --quick

check: lint audit ## ruff, mypy, shellcheck, and known vulnerabilities

lint: .venv .cache/debian
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	PATH=.cache/debian/bin:$$PATH shellcheck --shell=sh dhclient-hooks/anyipd dhcpcd-hooks/anyipd .ci/run \
		debian/postinst debian/postrm debian/prerm

# An answer is JSON. Where there is none, nobody could be asked: said, but no reason to stop working.
PIP_AUDIT = .cache/audit/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
	--requirement requirements.lock
audit: .cache/audit ## ask PyPI for known vulnerabilities of what `make install` takes from it
	@case $$($(PIP_AUDIT) --format json 2>.cache/audit.log; echo " $$?") in \
		'{'*' 0') echo 'No known vulnerability in requirements.lock' ;; \
		'{'*) $(PIP_AUDIT) ;; \
		*) echo "NOT AUDITED for vulnerabilities: $$(tail -n 1 .cache/audit.log)" >&2 ;; \
	esac

format: .venv ## let ruff set the code
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

bench: .venv .cache/debian ## measure, each figure against a peer in the same run
	@.venv/bin/python -m bench

soak: .venv .cache/debian ## real faults at random for MINUTES (5), with probes all the time; SEED repeats a run's order
	@.venv/bin/python -m tests.lab.soak --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) $(if $(JSON),--json)

# RUNS inputs a target, or SECONDS; TARGET names one of them.
fuzz: .venv/fuzz .cache/debian ## feed every input of anyipd's with what nobody should send (RUNS=, SECONDS=, TARGET=)
	@.venv/bin/python -m fuzz $(if $(RUNS),--runs $(RUNS)) $(if $(SECONDS),--seconds $(SECONDS)) $(TARGET)

.venv/fuzz: requirements-fuzz.lock .venv/stamp
	.venv/bin/python -m pip install $(QUIET) --require-hashes -r requirements-fuzz.lock
	touch $@

clean: ## remove everything that make made here
	rm -rf $(shell find anyipd tests bench fuzz -name __pycache__) .venv .cache dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
