# 'make' alone prints what there is. V=1 shows the commands.

VENV   := .venv
PYTHON := $(VENV)/bin/python
LOCK   := requirements/dev.txt
STAMP  := $(VENV)/.installed
CODE   := operator/tokenbucket tests bench examples hack
C_FILES = $(wildcard operator/bpf/*.[ch] tests/bpf/programs/*.c tests/netns/programs/*.c bench/*.c)

RANGE ?= main..HEAD
IMAGE ?= localhost/tokenbucket:test
SET_UP      := PYTHONPATH=.:operator:tests/e2e $(PYTHON) -m tests.set_up
DEV_CLUSTER := PYTHONPATH=.:tests/e2e $(PYTHON) -m tests.e2e.dev_cluster

OBJECT := build/tokenbucket.o
# Where Debian keeps asm/types.h, which the kernel's own headers include.
ASM_HEADERS := /usr/include/$(shell uname -m)-linux-gnu

ifneq ($(V),1)
.SILENT:
endif

.DEFAULT_GOAL := help
DOCS_VENV := build/docs-venv

.PHONY: docs check-commits wording bench-cluster bench-cluster-peers bench-peers bench-plots bench-fleet cluster cluster-demo cluster-down cluster-setup chart-setup vm-setup e2e-setup test-fresh e2e e2e-kind image test-chart test-vm test-kernels help setup fmt lint test test-quick test-unit test-bpf test-netns demo bench tokenbucket.o generate verify lock clean

help: ## this list
	awk -F ':[^#]*## ' '/^[a-z][a-z0-9.-]*:[^#]*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is needed (Debian 12 or 13, as root) and make .venv; nothing to do, nothing done
	hack/install-packages.sh
	$(MAKE) --no-print-directory $(STAMP)

$(STAMP): $(LOCK) pyproject.toml
	test -x $(PYTHON) || /usr/bin/python3 -m venv $(VENV)
	echo "installing Python packages into $(VENV)"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --requirement $(LOCK)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

fmt: setup ## format Python and C, and mend what the linter can mend
	$(VENV)/bin/ruff check --fix-only --quiet $(CODE)
	$(VENV)/bin/ruff format --quiet $(CODE)
	$(VENV)/bin/clang-format -i $(C_FILES)

lint: setup ## formats, linter, types, layers, spelling, wording
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)
	$(VENV)/bin/mypy
	PYTHONPATH=operator $(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/codespell $(CODE) operator/bpf docs *.md
	$(PYTHON) hack/wording.py
	$(VENV)/bin/zizmor --offline --quiet --no-progress --min-severity=medium .github

wording: setup ## banned words in docs, CRDs and Helm values; ARGS=-v: the figures
	$(PYTHON) hack/wording.py $(ARGS)

test: chart-setup vm-setup e2e-setup test-quick ## every test, of test-vm what is short; REQUIRE=unit,chart,bpf,netns,vm,e2e: fail rather than skip
	+hack/side-by-side.sh e2e test-kernels

test-quick: chart-setup tokenbucket.o ## the tests of unit, chart, bpf and netns, without network
	hack/without-network.sh $(PYTHON) -m pytest $(ARGS)

check-commits: ## the subjects of commits; RANGE=main..HEAD names them
	hack/commit-subjects.sh $(RANGE)

test-fresh: setup ## test-quick in a clone with empty caches, as on a new machine (root)
	hack/fresh-run.sh setup test-quick

test-unit: setup ## tests that need nothing
	$(PYTHON) -m pytest tests/unit $(ARGS)

test-bpf: setup ## tests of the program under BPF_PROG_TEST_RUN (root)
	$(PYTHON) -m pytest tests/bpf $(ARGS)

test-netns: setup ## tests with namespaces, veths and traffic (root)
	$(PYTHON) -m pytest tests/netns $(ARGS)

test-chart: chart-setup ## tests of the Helm chart
	$(PYTHON) -m pytest tests/chart $(ARGS)

test-vm: vm-setup ## the bpf and netns rungs on Debian's kernels, in virtual machines (root, an hour)
	$(PYTHON) -m pytest tests/vm --timeout=1800 $(ARGS)

test-kernels: vm-setup ## what is short of them (root)
	TOKENBUCKET_VM=short $(PYTHON) -m pytest tests/vm --timeout=1800 $(ARGS)

e2e: e2e-setup ## tests on a real Kubernetes cluster, which the first time is built (root, 25 min; 10 more then)
	$(PYTHON) -m pytest tests/e2e --timeout=1800 $(ARGS)

e2e-kind: setup ## the same on a kind cluster (docker, kind, helm, kubectl)
	hack/e2e-kind.sh $(ARGS)

image: ## the image, with docker, podman or buildah
	hack/image.sh $(IMAGE) $(ARGS)

cluster: cluster-setup ## a real Kubernetes cluster on this machine, without a registry, with the chart installed (root); ARGS=--vm: also a node whose kernel has fq
	$(DEV_CLUSTER) up $(ARGS)

cluster-demo: cluster-setup ## limits at work on it
	$(DEV_CLUSTER) demo $(ARGS)

cluster-down: setup ## end the cluster, leaving nothing
	cd tests/e2e && ../../$(PYTHON) -m cluster down

cluster-setup: setup
	hack/install-packages.sh tests/e2e/cluster/packages.txt

chart-setup vm-setup e2e-setup: cluster-setup
	$(SET_UP) $(@:-setup=)

demo: setup ## pods without a cluster, limited before your eyes (root, under 90 s)
	$(PYTHON) examples/demo

bench: setup ## what a decision costs, and how exact it is (root)
	PYTHONPATH=. $(PYTHON) bench/run.py $(ARGS)

bench-cluster: cluster-setup ## arrival, new rates and footprint on a real cluster (root)
	PYTHONPATH=.:tests/e2e:bench $(PYTHON) -m bench.cluster $(ARGS)

bench-cluster-peers: cluster-setup ## on a real cluster beside the CNI bandwidth plugin, on a node in a virtual machine (root, 20 min)
	PYTHONPATH=.:tests/e2e:bench $(PYTHON) -m bench.beside_plugin $(ARGS)

bench-fleet: cluster-setup ## hundreds of agents against a real API server (root, 10 min)
	PYTHONPATH=.:tests/e2e:bench $(PYTHON) -m bench.fleet $(ARGS)

bench-peers: cluster-setup ## beside the CNI plugin, HTB and police, on Debian's kernel in a virtual machine (root, 100 min)
	PYTHONPATH=.:tests/e2e $(PYTHON) -m bench.peers_in_machine $(ARGS)

bench-plots: setup ## plots and tables of docs/benchmarks/limiters.md, from RESULTS=file of bench-peers --results
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/plots.txt
	$(PYTHON) bench/plot.py $(RESULTS) docs/benchmarks/plots
	$(PYTHON) bench/peers_tables.py $(RESULTS)

tokenbucket.o: $(OBJECT) ## the program by clang, for stock tc: build/tokenbucket.o

$(OBJECT): $(wildcard operator/bpf/*.[ch])
	mkdir -p $(@D)
	clang -O2 -g -Wall -Wextra -Werror -target bpf -I operator/bpf -I $(ASM_HEADERS) -c operator/bpf/token_bucket.c -o $@

docs: setup ## the documentation site in build/site, with all links checked
	test -x $(DOCS_VENV)/bin/mkdocs || /usr/bin/python3 -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/docs.txt
	NO_MKDOCS_2_WARNING=true $(DOCS_VENV)/bin/mkdocs build --strict

generate: setup ## the mirror of layout.h, the generated parts of docs/reference, the chart's copy of the CRDs and its table of values
	$(PYTHON) hack/layout.py
	$(PYTHON) hack/cli_reference.py
	$(PYTHON) hack/metrics_table.py
	$(PYTHON) hack/reasons_reference.py
	$(PYTHON) hack/alerts_reference.py
	hack/sync_crds.sh
	$(PYTHON) hack/chart_readme.py

verify: generate ## fail if something generated differs from what is committed
	git diff --exit-code -- operator/tokenbucket/layout.py operator/tokenbucket/core/limits/counters.py docs/reference charts

lock: ## pin anew all that pyproject.toml asks for (network)
	hack/lock.sh $(LOCK)

clean: ## remove what was made here, .venv too
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find operator tests bench examples hack -name __pycache__ -prune -exec rm -rf {} +
