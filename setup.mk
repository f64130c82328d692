# From a bare clone to .venv and the lab's programs, with git, make and python3 alone.
# Nothing is installed into the machine, and nobody needs to be root.

# The system's own, which the service runs with, where it will do: Debian's is a fifth faster than one that
# was compiled without its options.
PYTHON ?= $(or $(shell /usr/bin/python3 -c 'import sys, venv; print(sys.executable) if sys.version_info >= (3, 11) \
	else None' 2>/dev/null),python3)
LAB_PACKAGES := bash busybox curl dash dbus-daemon dhcpcd-base dnsmasq-base iproute2 iputils-ping \
	isc-dhcp-client isc-dhcp-server kea-dhcp6-server libfaketime ndppd nftables nginx procps shellcheck strace systemd \
	systemd-container tinyproxy-bin unbound
QUIET := $(shell [ -t 2 ] || echo --quiet)

.PHONY: lock
lock: .venv ## write the lock files anew, from pyproject.toml and the registry
	@for lock in 'requirements.lock pyproject.toml' 'requirements-dev.lock pyproject.toml --group dev' \
			'requirements-audit.lock --group audit' 'requirements-fuzz.lock --group fuzz'; do \
		.venv/bin/uv pip compile --quiet --no-config --upgrade --universal --python-version 3.11 \
			--generate-hashes --custom-compile-command 'make lock' --output-file $$lock \
			|| exit; \
	done

.venv: .venv/stamp
.cache/debian: .cache/debian/stamp

.venv/stamp: requirements-dev.lock pyproject.toml setup.mk
	@command -v $(PYTHON) >/dev/null || \
		{ echo 'There is no $(PYTHON): run `apt install python3`' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 is wanted: run \`apt install python3.11\`, then \`make PYTHON=python3.11\`" >&2; exit 1; }
	@$(PYTHON) -c 'import venv' 2>/dev/null || \
		{ echo 'Python comes without venv here: run `apt install python3-venv`' >&2; exit 1; }
	$(PYTHON) -m venv --clear --without-pip .venv
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
		.venv/bin/python -m ensurepip >/dev/null; \
	else \
		$(MAKE) --no-print-directory -f setup.mk PYTHON=$(PYTHON) .venv/pip; \
	fi
	.venv/bin/python -m pip install $(QUIET) --require-hashes -r requirements-dev.lock
	.venv/bin/python -m pip install $(QUIET) --no-deps --no-build-isolation -e .
	touch $@

.cache/audit/stamp: requirements-audit.lock .venv/stamp
	rm -rf $(@D)
	$(PYTHON) -m venv --without-pip $(@D)
	.venv/bin/python -m pip --python $(@D)/bin/python install $(QUIET) --require-hashes -r requirements-audit.lock
	touch $@

# Debian's Python has no ensurepip without python3-venv, and its pip no certificate authorities of its
# own: where the machine has none either, they come with it, from ca-certificates.
.PHONY: .venv/pip
.venv/pip:
	@$(PYTHON) tests/lab/debian.py .cache/pip python3-pip-whl
	@$(PYTHON) -m zipfile -e .cache/pip/root/usr/share/python-wheels/pip-*.whl .venv/lib/python3*/site-packages
	@if [ -d .cache/pip/root/usr/share/ca-certificates ]; then \
		cat .cache/pip/root/usr/share/ca-certificates/mozilla/*.crt >.cache/pip/authorities.crt && \
		sed -i "s|/etc/ssl/certs/ca-certificates.crt|$(CURDIR)/.cache/pip/authorities.crt|" \
			.venv/lib/python3*/site-packages/pip/_vendor/certifi/core.py; \
	fi

.cache/audit: .cache/audit/stamp
.cache/lintian: .cache/lintian/stamp
.cache/services: .cache/services/stamp
.cache/wheels: .cache/wheels/stamp

# What `make install` and `make deb` take from the registry, for the tests, which have no way out.
.cache/wheels/stamp: requirements.lock .venv/stamp deb.mk
	rm -rf $(@D)
	.venv/bin/python -m pip download $(QUIET) --dest $(@D) --require-hashes -r requirements.lock
	.venv/bin/python -m pip download $(QUIET) --dest $(@D) $(call wheels,3.11)
	.venv/bin/python -m pip download $(QUIET) --dest $(@D) $(call wheels,3.13)
	touch $@

.cache/debian/stamp: tests/lab/debian.py setup.mk
	$(PYTHON) tests/lab/debian.py .cache/debian $(LAB_PACKAGES)
	touch $@

# Apart from the lab's programs: it brings a hundred packages, and shall shadow nothing.
.cache/lintian/stamp: tests/lab/debian.py setup.mk
	$(PYTHON) tests/lab/debian.py .cache/lintian lintian
	touch $@

# What docs/SERVICES.md sets up, and only its tests need; apart for the same reason.
.cache/services/stamp: tests/lab/debian.py setup.mk
	$(PYTHON) tests/lab/debian.py .cache/services busybox-static docker.io wireguard-go wireguard-tools
	touch $@

# A whole Debian 13, which has another Python, systemd and dhcpcd: for the package to be installed in, and
# for its DHCPv6 clients.
.cache/debian13: .cache/debian13/stamp
.cache/debian13/stamp: tests/lab/debian.py setup.mk
	rm -rf $(@D)
	mkdir -p $(@D)
	$(PYTHON) tests/lab/debian.py .cache/debootstrap debootstrap
	PATH=$(CURDIR)/.cache/debootstrap/bin:$$PATH DEBOOTSTRAP_DIR=.cache/debootstrap/root/usr/share/debootstrap \
		debootstrap --variant=minbase --include=dhcpcd-base,init-system-helpers,iproute2,procps,python3,systemd \
		trixie $(@D)/root $(if $(QUIET),>$(@D)/log)
	rm -f $(@D)/root/var/cache/apt/archives/*.deb
	touch $@
