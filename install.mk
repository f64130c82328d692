# make install, make uninstall. Included by the Makefile, whose .venv has pip and the build backend.
#
#   PREFIX   where the programs go (default /usr/local)
#   DESTDIR  a directory to install into instead of /; nothing of the running system is touched then

PREFIX ?= /usr/local
# The system's own, whatever PATH says: the daemon runs with ProtectHome=yes.
SYSTEM_PYTHON ?= /usr/bin/python3
# Any pip of 22.3 or later that need not be the target's own: Debian's python3 has no ensurepip.
VENV_PIP ?= .venv/bin/python -m pip

VENV = $(PREFIX)/lib/anyipd
STAGE = $(DESTDIR)$(VENV).new
WHEEL = dist/install
# systemd does not look below any other prefix.
SYSTEMD = $(if $(filter /usr /usr/local,$(PREFIX)),$(PREFIX)/lib,/etc)
HOOK = /etc/dhcp/dhclient-exit-hooks.d/anyipd
# Debian's run-parts passes over names with a dot, Fedora's dhclient-script over others. Where both are
# run, the second time changes nothing.
HOOK_SH = $(HOOK).sh
CONFIG = /etc/anyipd.yaml

UNIT = $(SYSTEMD)/systemd/system/anyipd.service
SYSUSERS = $(SYSTEMD)/sysusers.d/anyipd.conf
TMPFILES = $(SYSTEMD)/tmpfiles.d/anyipd.conf
SYSCTL = $(SYSTEMD)/sysctl.d/60-anyipd.conf
RT_PROTOS = /etc/iproute2/rt_protos.d/anyipd.conf

# $(call live,COMMANDS): what a recipe does to the running system. No comma in COMMANDS.
live = if [ -z '$(DESTDIR)' ] && [ -d /run/systemd/system ]; then set -e; $(1); fi

pip_install = $(VENV_PIP) --python '$(STAGE)/bin/python' install --quiet --no-compile

.PHONY: install uninstall

install: .venv ## install below PREFIX and DESTDIR, with service, hook and configuration
	rm -rf $(WHEEL) '$(STAGE)'
	$(VENV_PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir $(WHEEL) .
	$(SYSTEM_PYTHON) -m venv --without-pip '$(STAGE)'
	$(pip_install) --require-hashes -r requirements.lock
	$(pip_install) --no-deps --no-index --find-links $(WHEEL) anyipd
# Scripts and activation know where they were made: tell them where they will be.
	grep -rlIFZ '$(STAGE)' '$(STAGE)/bin' '$(STAGE)/pyvenv.cfg' | xargs -0 sed -i 's|$(STAGE)|$(VENV)|g'
# The old one goes only when the new one is whole.
	rm -rf '$(DESTDIR)$(VENV)'
	mv '$(STAGE)' '$(DESTDIR)$(VENV)'
	$(SYSTEM_PYTHON) -m compileall -q -s '$(DESTDIR)' -p / '$(DESTDIR)$(VENV)/lib'
	install -d '$(DESTDIR)$(PREFIX)/bin'
	for program in '$(DESTDIR)$(VENV)'/bin/anyip*; do \
		ln -sf "../lib/anyipd/bin/$${program##*/}" '$(DESTDIR)$(PREFIX)/bin/' || exit; \
	done
	sed 's|@BINDIR@|$(PREFIX)/bin|' systemd/anyipd.service > $(WHEEL)/anyipd.service
	install -D -m 644 $(WHEEL)/anyipd.service '$(DESTDIR)$(UNIT)'
	install -D -m 644 systemd/anyipd.sysusers '$(DESTDIR)$(SYSUSERS)'
	install -D -m 644 systemd/anyipd.tmpfiles '$(DESTDIR)$(TMPFILES)'
	install -D -m 644 systemd/anyipd.sysctl '$(DESTDIR)$(SYSCTL)'
	install -D -m 644 systemd/anyipd.rt_protos '$(DESTDIR)$(RT_PROTOS)'
	install -D -m 755 dhclient-hooks/anyipd '$(DESTDIR)$(HOOK)'
	ln -sf anyipd '$(DESTDIR)$(HOOK_SH)'
	[ -e '$(DESTDIR)$(CONFIG)' ] || install -D -m 644 systemd/anyipd.yaml '$(DESTDIR)$(CONFIG)'
	@$(call live, \
		systemd-sysusers '$(SYSUSERS)'; \
		systemd-tmpfiles --create '$(TMPFILES)'; \
		sysctl --quiet --load='$(SYSCTL)'; \
		systemctl daemon-reload; \
		echo 'Next: edit $(CONFIG) and systemctl enable --now anyipd')

uninstall: ## take all of it back, but for a changed configuration
	@$(call live, ! [ -e '$(UNIT)' ] || systemctl disable --now anyipd)
	rm -f '$(DESTDIR)$(UNIT)' '$(DESTDIR)$(SYSUSERS)' '$(DESTDIR)$(TMPFILES)' '$(DESTDIR)$(SYSCTL)' \
		'$(DESTDIR)$(RT_PROTOS)' '$(DESTDIR)$(HOOK)' '$(DESTDIR)$(HOOK_SH)'
	for program in '$(DESTDIR)$(VENV)'/bin/anyip*; do \
		rm -f '$(DESTDIR)$(PREFIX)'/bin/"$${program##*/}" || exit; \
	done
	rm -rf '$(DESTDIR)$(VENV)' '$(STAGE)'
	@if cmp -s systemd/anyipd.yaml '$(DESTDIR)$(CONFIG)'; then \
		rm '$(DESTDIR)$(CONFIG)'; \
	elif [ -e '$(DESTDIR)$(CONFIG)' ]; then \
		echo 'Kept: $(DESTDIR)$(CONFIG), which you changed'; \
	fi
	@$(call live, \
		systemctl daemon-reload; \
		rm -rf /run/anyipd; \
		echo 'Kept: the user anyipd and routes of protocol 150 (ip -6 route flush table all proto 150)')
