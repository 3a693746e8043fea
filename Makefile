# `make demo` and `make test` are all that a new machine needs: each installs the Debian packages it lacks.

SHELL := /bin/bash
NEED  := deploy/need.sh
# Where cargo puts what it builds.
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo release-dpdk test test-dpdk test-vm bench

help:
	@echo 'make demo    build the director and balance real HTTP by direct routing between two servers'
	@echo 'make release-dpdk   the director for NICs of its own, with DPDK in the program; installs libdpdk-dev'
	@echo 'make test    everything that CI runs: style, lints, unit, property and end-to-end tests, documentation'
	@echo 'make test-dpdk   the DPDK ports: lints, and tests over virtual devices; installs libdpdk-dev'
	@echo 'make test-vm   the director on NICs bound to vfio-pci, in a virtual machine; installs qemu, downloads a kernel'
	@echo 'make bench   the performance figures, with their goals, and dpdk-testpmd beside; installs libdpdk-dev and dpdk-dev'

demo:
	@$(NEED) cargo cc ip curl nginx sysctl
	@echo 'building pointsmand and pointsman (some minutes the first time)'
	@cargo build --quiet --release --package pointsman-control --bins
	@deploy/demo/demo.sh $(TARGET)/release

# DPDK and the drivers of the usual NICs become part of the program.
release-dpdk:
	@$(NEED) cargo cc libdpdk
	@echo 'building $(TARGET)/release/pointsmand and pointsman with DPDK (some minutes the first time)'
	@cargo build --quiet --release --package pointsman-control --package dpdk-sys --features pointsman-control/dpdk,dpdk-sys/static --bins

test:
	@$(NEED) cargo cc ip curl nginx ethtool nft ping scapy sysctl valgrind vsftpd libdpdk
	@deploy/hugepages.sh cargo ci
	@$(MAKE) --no-print-directory test-dpdk
	@$(MAKE) --no-print-directory test-vm

# The whole workspace with the feature, so that what is built is what `cargo ci` has built, but for the crates that have it.
WITH_DPDK := --workspace --features pointsman-dataplane/dpdk,pointsman-control/dpdk,pointsman-benches/dpdk,pointsman-benches/control,pointsman-tests/dpdk
test-dpdk:
	@$(NEED) cargo cc ip curl nginx ethtool ping python3 sysctl libdpdk
	@echo '==> lints with DPDK'
	@cargo clippy --quiet $(WITH_DPDK) --all-targets -- -D warnings
	@echo '==> tests with DPDK'
	@cargo build --quiet $(WITH_DPDK) --bin pointsmand --bin pointsman
	@cargo test --quiet --package pointsman-dataplane --features dpdk --lib dpdk
	@cargo test $(WITH_DPDK) --test dpdk --test dpdk_devices --test dpdk_host --test dpdk_memif --test dpdk_refusals
	@if reason=$$(tests/scripts/af_xdp.py); then \
		cargo test $(WITH_DPDK) --test dpdk_peers; \
	else \
		echo "==> left out: the tests of ports by AF_XDP (--test dpdk_peers): $$reason"; \
	fi

test-vm:
	@$(NEED) cargo cc ip curl nginx ping sysctl libdpdk qemu-system-x86_64 busybox strip
	@cargo clippy --quiet $(WITH_DPDK),pointsman-tests/vm --test vm -- -D warnings
	@cargo build --quiet $(WITH_DPDK) --bin pointsmand --bin pointsman
	@tests/vm/prepare.sh target/vm $(TARGET)/debug/pointsmand $(TARGET)/debug/pointsman
	@RUST_TEST_THREADS=1 cargo test --quiet $(WITH_DPDK),pointsman-tests/vm --test vm

# The tables of ten million flows and DPDK's packets together: 800 huge pages of 2 MiB.
bench: export POINTSMAN_HUGEPAGES ?= 1024
bench:
	@$(NEED) cargo cc ip valgrind libdpdk dpdk-testpmd
	@echo 'building pointsman-bench (some minutes the first time)'
	@cargo build --quiet --release --package pointsman-benches --features dpdk,control --bins
	@deploy/hugepages.sh $(TARGET)/release/pointsman-bench
