# Packages. Included by the Makefile.
#   make deb             dist/*.deb and its source
#   make rpm             dist/*.rpm and dist/*.src.rpm
#   make check-packages  both, and what becomes of them on real machines
.PHONY: deb rpm check-packages

PACKAGING_DEPS = @packaging/tests/install-deps

deb:
	$(PACKAGING_DEPS) deb
	@packaging/build deb

rpm:
	$(PACKAGING_DEPS) rpm
	@packaging/build rpm

check-packages: deps
	$(ROOT_CHECK)
	$(PACKAGING_DEPS) check
	$(RUN) packaging/tests
