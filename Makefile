# SPDX-License-Identifier: Apache-2.0
# A thin front end: meson and ninja build, kernel/build.sh builds the guest kernel, scripts/ does the rest.

PREFIX  ?= /usr/local
DESTDIR ?=
BUILD   ?= build

help:
	@echo 'make quickstart             install packages, build everything, put caisson on PATH, run the first sandbox'
	@echo 'make build                  build the programs ($(BUILD)/)'
	@echo 'make kernel                 build the guest kernel (cached; log: $(BUILD)/kernel.log)'
	@echo 'make check                  all quick tests, at most 10 minutes; installs the packages they need'
	@echo 'make check-long             the long tests too'
	@echo 'make bench                  measure against QEMU (BENCH="--json out.json --runs 20")'
	@echo 'make fuzz                   build the fuzz targets with clang and run each for FUZZ_SECONDS (60)'
	@echo 'make install PREFIX=/usr/local DESTDIR='
	@echo 'make clean                  remove $(BUILD)/ but the guest kernel'

quickstart:
	@PREFIX='$(PREFIX)' BUILD='$(BUILD)' scripts/quickstart.sh

# Without the tests' packages the tests are left out; `make check` installs those packages and turns the tests on.
$(BUILD)/build.ninja:
	@mkdir -p $(BUILD); tests=false; pkg-config --exists cmocka && tests=true; \
	meson setup $(BUILD) --buildtype=release -Dtests=$$tests >$(BUILD)/setup.log 2>&1 || { cat $(BUILD)/setup.log; exit 1; }

build: $(BUILD)/build.ninja
	@ninja -C $(BUILD) programs

kernel:
	@kernel/build.sh $(BUILD)

check:
	@BUILD='$(BUILD)' scripts/check.sh

check-long:
	@BUILD='$(BUILD)' scripts/check.sh --long

bench: build kernel
	@scripts/packages.sh install build check bench
	@BUILD='$(BUILD)' tests/bench/bench.py $(BENCH)
	@BUILD='$(BUILD)' tests/bench/images.py
	@ninja -C '$(BUILD)' tests/tools/container-run && BUILD='$(BUILD)' tests/bench/containers.py
	@BUILD='$(BUILD)' tests/bench/devices.py

fuzz:
	@BUILD='$(BUILD)' scripts/fuzz.sh

install: build kernel
	@scripts/install.sh '$(BUILD)' '$(PREFIX)' '$(DESTDIR)'

clean:
	@find '$(BUILD)' -mindepth 1 -maxdepth 1 ! -name kernel -exec rm -rf {} + 2>/dev/null || true

.PHONY: help quickstart build kernel check check-long bench fuzz install clean
