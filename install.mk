# make install, make uninstall. Included by the Makefile, whose .venv has pip and the build backend.
# They make a virtual environment with the programs; all else is `anyipctl install`'s.
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
DIST = dist
WHEEL = $(DIST)/install

# The service reads this as an ordinary user, whatever the umask of the one who installs it.
for_all = umask 022;
pip_install = $(for_all) $(VENV_PIP) --python '$(STAGE)/bin/python' install --quiet --no-compile
# $(call anyipctl,install): the installed one's, which finds itself where it will not be looked for.
anyipctl = '$(DESTDIR)$(VENV)/bin/python' -P -m anyipd.ctl $(1) --root '$(DESTDIR)/' --prefix '$(PREFIX)'

.PHONY: install uninstall wheel

wheel: .venv
	rm -rf $(WHEEL)
	$(VENV_PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir $(WHEEL) .

install: wheel ## install below PREFIX and DESTDIR, with service, hook and configuration
	rm -rf '$(STAGE)'
	$(for_all) $(SYSTEM_PYTHON) -m venv --without-pip '$(STAGE)'
	$(pip_install) --require-hashes -r requirements.lock
	$(pip_install) --no-deps --no-index --find-links $(WHEEL) anyipd
# Scripts and activation know where they were made: tell them where they will be.
	grep -rlIFZ '$(STAGE)' '$(STAGE)/bin' '$(STAGE)/pyvenv.cfg' | xargs -0 sed -i 's|$(STAGE)|$(VENV)|g'
# The old one goes only when the new one is whole.
	rm -rf '$(DESTDIR)$(VENV)'
	mv '$(STAGE)' '$(DESTDIR)$(VENV)'
	$(for_all) $(SYSTEM_PYTHON) -m compileall -q -s '$(DESTDIR)' -p / '$(DESTDIR)$(VENV)/lib'
	$(for_all) install -d '$(DESTDIR)$(PREFIX)/bin'
	for program in '$(DESTDIR)$(VENV)'/bin/anyip*; do \
		ln -sf "../lib/anyipd/bin/$${program##*/}" '$(DESTDIR)$(PREFIX)/bin/' || exit; \
	done
	@$(call anyipctl,install)

uninstall: ## take all of it back, but for a changed configuration
	@[ ! -e '$(DESTDIR)$(VENV)' ] || $(call anyipctl,uninstall)
	for program in '$(DESTDIR)$(VENV)'/bin/anyip*; do \
		rm -f '$(DESTDIR)$(PREFIX)'/bin/"$${program##*/}" || exit; \
	done
	rm -rf '$(DESTDIR)$(VENV)' '$(STAGE)'
