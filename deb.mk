# make deb: one package for Debian 12 and 13. Included by the Makefile, after install.mk.
#
# Debian 12 has Python 3.11 and Debian 13 has 3.13; both find the same files below /usr/lib/anyipd, for
# wheels of one version differ in compiled modules alone, and these bear the Python's in their names. So an
# upgrade of Debian leaves anyipd whole. Any Python of 3.11 or later builds it, and nobody needs to be root.

DEB_VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' anyipd/__init__.py)
DEB_ARCHITECTURE = $(shell dpkg --print-architecture)
DEB_DATE = $(shell git log -1 --format=%ct)
# Whoever built it: who wrote the last commit, unless told otherwise.
MAINTAINER ?= $(shell git log -1 --format='%an <%ae>')

DEB = $(DIST)/deb
DEB_ROOT = $(DEB)/root
DEB_VENV = $(DEB_ROOT)/usr/lib/anyipd
DEB_SITE = $(DEB_VENV)/lib/python3.11/site-packages
DEB_DOC = $(DEB_ROOT)/usr/share/doc/anyipd
DEB_HOOK = usr/lib/anyipd/dhclient-exit-hook

# $(call wheels,3.13): where pip, of whichever Python, is told to fetch for that one.
wheels = --only-binary :all: --python-version $(1) --implementation cp --require-hashes -r requirements.lock

.PHONY: deb

deb: wheel ## build a Debian package, in dist/
	@for program in dpkg-deb git gzip; do command -v $$program >/dev/null || \
		{ echo "There is no $$program: run \`apt install $${program%-deb}\` on a Debian" >&2; exit 1; }; done
	rm -rf $(DEB)
	install -d $(DEB_VENV)/bin $(DEB_SITE) $(DEB_DOC) $(DEB_ROOT)/usr/bin $(DEB_ROOT)/DEBIAN
# The virtual environment. What `python3 -m venv` makes is for the Python that makes it.
	printf '%s\n' 'home = /usr/bin' 'include-system-site-packages = false' >$(DEB_VENV)/pyvenv.cfg
	ln -s ../../../bin/python3 $(DEB_VENV)/bin/python
	ln -s python3.11 $(DEB_VENV)/lib/python3.13
	$(VENV_PIP) install --quiet --no-compile --target $(DEB)/3.13 $(call wheels,3.13)
	$(VENV_PIP) install --quiet --no-compile --target $(DEB)/3.11 $(call wheels,3.11)
# Nobody calls the programs of libraries.
	rm -rf $(DEB)/3.13/bin $(DEB)/3.11/bin
	cp -r $(DEB)/3.13/. $(DEB)/3.11/. $(DEB_SITE)
	$(VENV_PIP) install --quiet --no-compile --target $(DEB)/anyipd --no-deps --no-index --find-links $(WHEEL) anyipd
	sed -i '1s|.*|#!/usr/lib/anyipd/bin/python|' $(DEB)/anyipd/bin/*
	mv $(DEB)/anyipd/bin/* $(DEB_VENV)/bin
	rmdir $(DEB)/anyipd/bin
	cp -r $(DEB)/anyipd/. $(DEB_SITE)
	ln -s $(addprefix ../lib/anyipd/bin/,anyipd anyipctl anyipd-neighbour) $(DEB_ROOT)/usr/bin
# All else. From here on that is dpkg's, so the package's own anyipctl cannot do it again.
	PYTHONPATH=$(DEB_SITE) .venv/bin/python -P -m anyipd.ctl install --root $(DEB_ROOT) --prefix /usr
	rm -r $(DEB_SITE)/anyipd/system
	gzip -9n $(DEB_ROOT)/usr/share/man/man*/*
# A conffile would stay, and work on, when the package is removed. Debian's dhclient-script sources it.
	install -m 644 $(DEB_ROOT)/etc/dhcp/dhclient-exit-hooks.d/anyipd $(DEB_ROOT)/$(DEB_HOOK)
	ln -sf /$(DEB_HOOK) $(DEB_ROOT)/etc/dhcp/dhclient-exit-hooks.d/anyipd
	rm $(DEB_ROOT)/etc/dhcp/dhclient-exit-hooks.d/anyipd.sh
# What makes it a package. Of licences that Debian has debian/copyright tells.
	{ cat debian/copyright && for licence in $(DEB)/3.11/*.dist-info/licenses/LICENSE*; do \
		case $$licence in *-APACHE | *Apache-* | *GPL-* | */scapy-*) continue ;; esac; \
		echo; echo "$${licence#$(DEB)/3.11/}:" | sed 's|.dist-info/.*:|:|'; echo; cat "$$licence" || exit; \
	done; } >$(DEB_DOC)/copyright
	gzip -9nc CHANGELOG.md >$(DEB_DOC)/CHANGELOG.md.gz
	{ printf 'anyipd ($(DEB_VERSION)) stable; urgency=medium\n\n  * CHANGELOG.md tells what changed.\n\n' && \
		printf ' -- %s  %s\n' '$(MAINTAINER)' "$$(LC_ALL=C date -R -u -d @$(DEB_DATE))"; } \
		| gzip -9nc >$(DEB_DOC)/changelog.gz
	install -D -m 644 debian/lintian-overrides $(DEB_ROOT)/usr/share/lintian/overrides/anyipd
	install -m 755 debian/postinst debian/prerm debian/postrm $(DEB_ROOT)/DEBIAN
	chmod -R u=rwX,go=rX $(DEB_ROOT)
	cd $(DEB_ROOT) && find etc -type f -printf '/%p\n' >DEBIAN/conffiles && \
		find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums
	sed -e 's|@VERSION@|$(DEB_VERSION)|' -e 's|@ARCHITECTURE@|$(DEB_ARCHITECTURE)|' \
		-e 's|@MAINTAINER@|$(MAINTAINER)|' -e "s|@SIZE@|$$(du -k -s $(DEB_ROOT) | cut -f1)|" \
		debian/control >$(DEB_ROOT)/DEBIAN/control
	SOURCE_DATE_EPOCH=$(DEB_DATE) dpkg-deb --root-owner-group --build $(DEB_ROOT) $(DIST)
