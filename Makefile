# So that pytest keeps, for the next run, what it makes of modules with assertions.
export PYTHONDONTWRITEBYTECODE =

# `make demo SHELL=1` would otherwise have make run its recipes by a shell called 1
ifeq ($(origin SHELL),command line)
DEMO_SHELL := $(SHELL)
endif
override SHELL := /bin/sh

# make demo and make check install what they need (Debian-like machines) and need root.
PYTHON = /usr/bin/python3
VENV = .venv
RUN = $(VENV)/bin/python -m pytest -p no:cacheprovider
# Processes for what has namespaces of its own, as tests/conftest.py hands it out: more than twice the cores, as tests
# wait half of their time; 0 to have it all in one. One that dies ends the run, which has failed then.
JOBS = $(shell expr 2 \* $$(nproc) + 2)
SHARE = $(RUN) -n $(JOBS) --dist loadgroup --no-loadscope-reorder --max-worker-restart 0
ROOT_CHECK = @[ "$$(id -u)" = 0 ] || { echo "make $@ needs root: network namespaces, libvirtd; try: sudo make $@" >&2; exit 5; }

.PHONY: help demo quick check check-modular check-guests check-desktop check-clients check-fresh lint unit netns e2e tests fresh bench fuzz soak install uninstall clean deps pictures screenshot

help:
	@echo 'make demo           a guest at 127.1.0.x in a minute, in a sandbox (SHELL=1: a shell inside at the end)'
	@echo 'make quick          lint, unit and golden tests, one guest: in three minutes'
	@echo 'make check          all tests: lint unit netns e2e fresh, each a target of its own too (JOBS=4: at once)'
	@echo 'make check-fresh    demo and check in minimal Debian 12, 13, sid, Ubuntu 22.04, 24.04 (ROOT=trixie: that one)'
	@echo 'make check-modular  most of e2e once more, with virtqemud and virtnetworkd in the place of libvirtd'
	@echo 'make check-guests   whole systems as guests: Debian in six ways, firmware, a host within a host, AppArmor; slow'
	@echo 'make check-desktop  the real virt-manager, on a screen in memory'
	@echo 'make check-clients  other programs that work with libvirt: Ansible, Vagrant, Cockpit, avahi and more; slow'
	@echo 'make bench          speed, as ratios; make fuzz, make soak: the long tests'
	@echo 'make deb, make rpm  packages, into dist/; make check-packages tests them on real Debian systems'
	@echo 'make install        module, command, hooks and templates onto this host; make uninstall takes them off'

demo:
	$(ROOT_CHECK)
	@tests/install-deps demo
	@LOOPNET_DEMO_SHELL=$(DEMO_SHELL) $(PYTHON) -m tests.demo

quick: lint
	$(ROOT_CHECK)
	$(SHARE) tests/e2e/test_demo.py::test_demo_with_a_shell_at_the_end tests/unit tests/golden

# Two runs, as modules of some tiers have the same names; all that waits is in the second. mypy takes one processor only.
check: deps
	@$(MAKE) --no-print-directory -j 2 lint unit
	$(ROOT_CHECK)
	$(SHARE) --again tests/fresh tests/e2e tests/netns

deps: $(VENV)/.done

$(VENV)/.done: tests/requirements.txt tests/install-deps
	@tests/install-deps check
	@$(PYTHON) -m venv --system-site-packages $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

lint: deps
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy libvirt_loopnet tests setup.py

unit: deps
	$(SHARE) tests/unit tests/golden

netns: deps
	$(ROOT_CHECK)
	$(SHARE) tests/netns

e2e: deps
	$(ROOT_CHECK)
	$(SHARE) tests/e2e

# TESTS='tests/e2e/test_cli.py': those alone; of unit and golden, or of the others, as modules have the same names
tests: deps
	$(ROOT_CHECK)
	@[ -n '$(TESTS)' ] || { echo "make tests: which? try: make tests TESTS=tests/unit" >&2; exit 2; }
	$(SHARE) $(TESTS)

# Not those that are about libvirtd's own ways: containers, migration over TCP, load
MODULAR = cli convert first_light leases lifecycle names net_update nics plugs ports reach refusals removal \
	restore_state senders watch

check-modular: deps
	$(ROOT_CHECK)
	LOOPNET_DAEMONS=modular $(SHARE) tests/e2e/test_modular.py $(MODULAR:%=tests/e2e/test_%.py)

# GUESTS=ifupdown: that system alone
check-guests: deps
	$(ROOT_CHECK)
	@tests/install-deps guests
	$(PACKAGING_DEPS) deb
	$(RUN) tests/guests $(if $(GUESTS),-k '$(GUESTS)')

# The demo in another release than this machine's, from nothing
fresh: deps
	$(ROOT_CHECK)
	$(SHARE) tests/fresh

# ROOT=trixie: that system alone; TARGETS='demo check' is what make does in it; TESTS='tests/e2e/test_cli.py': those alone
check-fresh:
	$(ROOT_CHECK)
	@tests/install-deps fresh
	@$(PYTHON) -m tests.fresh $(ROOT) $(if $(TARGETS),--targets '$(TARGETS)') $(if $(TESTS),--tests '$(TESTS)')

check-desktop: deps
	$(ROOT_CHECK)
	@tests/install-deps desktop
	$(RUN) tests/desktop

check-clients: deps
	$(ROOT_CHECK)
	@tests/install-deps clients
	$(RUN) tests/clients tests/desktop

pictures:
	PYTHONPATH=. $(PYTHON) packaging/pictures/draw.py

# The picture that is none of ours: virt-manager's page of a guest at 127.1.0.2, as the test of it sees the page
screenshot: deps
	$(ROOT_CHECK)
	@tests/install-deps desktop
	LOOPNET_SCREENSHOT=packaging/pictures/virt-manager.png $(RUN) tests/desktop -k address
	mv packaging/pictures/virt-manager-address.png packaging/pictures/virt-manager.png

include packaging/packages.mk

# --- on this host, from a checkout; packages do the same their own way
PREFIX = /usr/local
LIBDIR = $(PREFIX)/lib/libvirt-loopnet
HOOKS = $(DESTDIR)/etc/libvirt/hooks

install:
	install -d $(DESTDIR)$(LIBDIR)/libvirt_loopnet $(DESTDIR)$(PREFIX)/bin $(HOOKS)/network.d $(HOOKS)/qemu.d
	install -d $(DESTDIR)$(PREFIX)/share/libvirt-loopnet
	cp -r libvirt_loopnet/. $(DESTDIR)$(LIBDIR)/libvirt_loopnet
	find $(DESTDIR)$(LIBDIR) -name __pycache__ -prune -exec rm -rf {} +
	$(PYTHON) -m compileall -q $(DESTDIR)$(LIBDIR) -s '$(DESTDIR)'
	for driver in network qemu; do \
		sed 's|^package=.*|package=$(LIBDIR)|' hooks/$$driver >$(HOOKS)/$$driver.d/50-loopnet && \
		chmod 755 $(HOOKS)/$$driver.d/50-loopnet || exit; done
	install -m 755 hooks/lease $(DESTDIR)$(LIBDIR)/lease
	sed 's|@PACKAGE@|$(LIBDIR)|' packaging/loopnet.in >$(DESTDIR)$(PREFIX)/bin/loopnet
	chmod 755 $(DESTDIR)$(PREFIX)/bin/loopnet
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/share/libvirt-loopnet/hooks hooks/network hooks/qemu
	install -m 644 xml-templates/*.xml packaging/loopnet.schema.json $(DESTDIR)$(PREFIX)/share/libvirt-loopnet
	[ -e $(DESTDIR)/etc/libvirt-loopnet.conf ] || \
		install -m 644 packaging/libvirt-loopnet.conf $(DESTDIR)/etc/libvirt-loopnet.conf
	@[ -n '$(DESTDIR)' ] || rm -rf /run/libvirt-loopnet-removed $(HOOKS)/*.d/50-loopnet-removed
	@[ -n '$(DESTDIR)' ] || packaging/reload-libvirt

uninstall:
	@# what guests are on goes on, and says how it ends
	@[ -n '$(DESTDIR)' ] || [ ! -x $(PREFIX)/bin/loopnet ] || $(PREFIX)/bin/loopnet uninstall-hooks
	rm -f $(HOOKS)/network.d/50-loopnet $(HOOKS)/qemu.d/50-loopnet $(DESTDIR)$(PREFIX)/bin/loopnet
	rm -rf $(DESTDIR)$(LIBDIR) $(DESTDIR)$(PREFIX)/share/libvirt-loopnet
	@[ -n '$(DESTDIR)' ] || packaging/reload-libvirt
	@echo 'Kept: /etc/libvirt-loopnet.conf, and the reservations in /var/lib/libvirt-loopnet'

bench: deps
	$(ROOT_CHECK)
	@tests/install-deps bench
	$(VENV)/bin/python -m tests.bench $(BENCH)

fuzz: deps
	$(ROOT_CHECK)
	$(VENV)/bin/python -m tests.fuzz $(FUZZ)

soak: deps
	$(ROOT_CHECK)
	LOOPNET_LOAD_SECONDS=300 $(RUN) tests/e2e/test_load.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
