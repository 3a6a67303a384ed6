# 'make' lists all targets. V=1 prints the commands.

VENV   := .venv
PYTHON := $(VENV)/bin/python
LOCK   := requirements/dev.txt
STAMP  := $(VENV)/.installed
CODE   := operator/tokenbucket tests bench examples hack
C_FILES = $(wildcard operator/bpf/*.[ch] tests/bpf/programs/*.c tests/netns/programs/*.c bench/*.c)

RANGE ?= main..HEAD
IMAGE ?= localhost/tokenbucket:test
SET_UP      := PYTHONPATH=.:operator:tests/e2e $(PYTHON) -m tests.set_up
# Runs a command and, with RECORD=1, records the result of a cell of docs/reference/support-matrix.md.
RECORDED     = $(PYTHON) -m tests.support.record "make $@$(VERSION:%= VERSION=%)"
DEV_CLUSTER := PYTHONPATH=.:tests/e2e $(PYTHON) -m tests.e2e.dev_cluster

SUITE_OF_BCC_0.26 := bookworm
SUITE_OF_BCC_0.31 := trixie
# Beside a cluster of the default version.
OTHER_KUBERNETES = TOKENBUCKET_E2E_KUBERNETES=$(VERSION) TOKENBUCKET_E2E_NAME=default-$(subst .,-,$(VERSION)) TOKENBUCKET_E2E_VM=0

OBJECT := build/tokenbucket.o
# Directory of asm/types.h on Debian, which the kernel headers include.
ASM_HEADERS := /usr/include/$(shell uname -m)-linux-gnu

ifneq ($(V),1)
.SILENT:
endif

.DEFAULT_GOAL := help
DOCS_VENV := build/docs-venv

.PHONY: docs nightly fuzz workflows check-commits wording test-python test-bcc bench-idle bench-top bench-annotations bench-cluster bench-cluster-peers bench-peers bench-plots bench-fleet cluster cluster-demo cluster-down cluster-setup cilium-packages chart-setup vm-setup e2e-setup e2e-cilium-setup test-fresh e2e e2e-deaf e2e-installation e2e-docs e2e-kubernetes e2e-cilium e2e-kind image test-chart test-vm test-kernels test-settings test-arm64 help setup fmt lint test test-quick test-unit test-bpf test-netns demo picture bench tokenbucket.o generate verify lock clean bench-live plugin-archive chart-archive

help: ## list all targets
	awk -F ':[^#]*## ' '/^[a-z][a-z0-9.-]*:[^#]*## / { printf "  %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install packages (Debian 12 or 13, as root) and create .venv; skips finished steps
	hack/install-packages.sh
	$(MAKE) --no-print-directory $(STAMP)

$(STAMP): $(LOCK) pyproject.toml
	test -x $(PYTHON) || /usr/bin/python3 -m venv $(VENV)
	echo "installing Python packages into $(VENV)"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --requirement $(LOCK)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

fmt: setup ## format Python and C, and apply the automatic fixes of the linter
	$(VENV)/bin/ruff check --fix-only --quiet $(CODE)
	$(VENV)/bin/ruff format --quiet $(CODE)
	$(VENV)/bin/clang-format -i $(C_FILES)

lint: setup ## check format, types, layers, spelling and wording
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)
	$(VENV)/bin/mypy
	PYTHONPATH=operator $(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/codespell $(CODE) operator/bpf docs charts crds *.md
	$(PYTHON) hack/wording.py
	$(VENV)/bin/zizmor --offline --quiet --no-progress --min-severity=medium .github

workflows: setup ## check the workflows with actionlint and zizmor
	actionlint=$$($(SET_UP) workflows | tail -n 1) && $$actionlint
	$(VENV)/bin/zizmor --offline --quiet --no-progress --min-severity=medium .github

wording: setup ## check docs, CRDs and Helm values for banned words; ARGS=-v prints the figures
	$(PYTHON) hack/wording.py $(ARGS)

test: chart-setup vm-setup e2e-setup tokenbucket.o ## run all tests, on other kernels a short selection; REQUIRE=unit,chart,bpf,netns,vm,e2e fails instead of skipping
	+hack/side-by-side.sh e2e test-kernels test-quick

test-quick: chart-setup tokenbucket.o ## run the unit, chart, bpf and netns tests, without network access
	$(RECORDED) Architecture,Kernel,bcc here hack/without-network.sh $(PYTHON) -m pytest $(ARGS)

check-commits: ## check the subjects of the commits in RANGE (default main..HEAD)
	hack/commit-subjects.sh $(RANGE)

test-fresh: setup ## run all tests in a clone with empty caches, as on a new machine (root); TARGET=test-quick runs a part
	hack/fresh-run.sh setup $(or $(TARGET),test)

nightly: setup ## run each job of the nightly workflow, one after another (root, 6 hours)
	hack/nightly.sh

test-unit: setup ## run the tests that need no privileges
	$(PYTHON) -m pytest tests/unit $(ARGS)

test-python: setup ## run the unit tests on another Python; VERSION=3.12
	$(RECORDED) Python $(VERSION) hack/test-python.sh $(VERSION) $(ARGS)

test-bpf: setup ## run the tests of the program under BPF_PROG_TEST_RUN (root)
	$(PYTHON) -m pytest tests/bpf $(ARGS)

test-bcc: cluster-setup ## run the bpf tests with the bcc of Debian 12 or 13; VERSION=0.26 or 0.31 (root)
	$(RECORDED) bcc $(VERSION) hack/test-debian.sh $(SUITE_OF_BCC_$(VERSION)) $(ARGS)

test-netns: setup ## run the tests with network namespaces, veths and traffic (root)
	$(PYTHON) -m pytest tests/netns $(ARGS)

fuzz: setup ## run the tests with generated inputs with 30 times as many inputs (root, 1 hour)
	$(PYTHON) -m pytest tests/unit tests/bpf -m hypothesis --hypothesis-profile=many --timeout=1800 $(ARGS)

test-chart: chart-setup ## run the tests of the Helm chart
	$(PYTHON) -m pytest tests/chart $(ARGS)

test-vm: vm-setup ## run the bpf and netns tests on Debian kernels in virtual machines (root, 1 hour)
	$(PYTHON) -m pytest tests/vm --ignore=tests/vm/test_settings.py --timeout=1800 $(ARGS)

test-settings: vm-setup ## run tests of a limit on a kernel with settings that restrict BPF (root, 15 min)
	$(PYTHON) -m pytest tests/vm/test_settings.py --timeout=3600 $(ARGS)

test-arm64: setup ## run tests that depend on the architecture in an emulated arm64 machine (root, 40 min)
	hack/install-packages.sh tests/vm/arm64/packages.txt
	$(RECORDED) Architecture arm64 hack/test-arm64.sh

test-kernels: vm-setup ## run a short selection of test-vm (root)
	TOKENBUCKET_VM=short $(PYTHON) -m pytest tests/vm --ignore=tests/vm/test_settings.py --timeout=1800 $(ARGS)

e2e: e2e-setup ## run the tests on a Kubernetes cluster (root, 25 min; the first run takes 10 min longer)
	$(PYTHON) -m pytest tests/e2e --ignore=tests/e2e/test_installation.py --ignore=tests/e2e/test_deaf_agents.py --ignore=tests/e2e/test_exactness.py --ignore=tests/e2e/test_documentation.py --ignore=tests/e2e/test_plugin.py --ignore=tests/e2e/test_annotated_pods.py --ignore=tests/e2e/test_explain.py --ignore=tests/e2e/test_explain_faults.py --timeout=1800 $(ARGS)

e2e-deaf: e2e-setup ## cut agents off from the API server in four ways, on a cluster (root, 10 min)
	$(PYTHON) -m pytest tests/e2e/test_deaf_agents.py --timeout=1800 $(ARGS)

e2e-installation: e2e-setup ## install the chart with Helm 3 and 4, kubectl and kustomize on a cluster (root, 15 min)
	$(PYTHON) -m pytest tests/e2e/test_installation.py --timeout=1800 $(ARGS)

e2e-docs: e2e-setup ## run the commands of the documentation and of the kubectl plugin on a cluster (root, 20 min)
	$(PYTHON) -m pytest tests/e2e/test_documentation.py tests/e2e/test_plugin.py tests/e2e/test_explain.py tests/e2e/test_explain_faults.py tests/e2e/test_annotated_pods.py --timeout=1800 $(ARGS)

e2e-kubernetes: cluster-setup ## run the tests that depend on Kubernetes on another version of it; VERSION=1.34 (root, 10 min; the first run takes 10 min longer)
	$(OTHER_KUBERNETES) $(SET_UP) kubernetes
	$(OTHER_KUBERNETES) $(RECORDED) Kubernetes $(VERSION) $(PYTHON) -m pytest tests/e2e -m kubernetes --timeout=1800 $(ARGS)

e2e-cilium: e2e-cilium-setup ## run the tests on a cluster with Cilium, in several modes (root, 40 min; the first run takes 30 min longer)
	$(PYTHON) -m pytest tests/e2e_cilium --timeout=1800 $(ARGS)

e2e-kind: setup ## run the same tests on a kind cluster; without a registry, on nodes that it builds (root)
	hack/e2e-kind.sh $(ARGS)

image: ## build the image with docker, podman or buildah
	hack/image.sh $(IMAGE) $(ARGS)

cluster: cluster-setup ## start a Kubernetes cluster on this machine, with the chart and without a registry (root, 10 minutes the first time); ARGS=--vm adds a node with fq
	$(DEV_CLUSTER) up $(ARGS)

cluster-demo: cluster-setup ## show limits on that cluster, and change nothing else in it (2 minutes)
	$(DEV_CLUSTER) demo $(ARGS)

cluster-down: setup ## stop the cluster and remove its files
	cd tests/e2e && ../../$(PYTHON) -m cluster down

cluster-setup: setup
	hack/install-packages.sh tests/e2e/cluster/packages.txt

cilium-packages: cluster-setup
	hack/install-packages.sh tests/e2e/cluster/cilium_packages.txt

e2e-cilium-setup: cilium-packages
chart-setup vm-setup e2e-setup e2e-cilium-setup: cluster-setup
	$(SET_UP) $(@:-setup=)

demo: setup ## limit pods without a cluster, and show their throughput (root, under 90 s)
	PYTHONPATH=. $(PYTHON) examples/demo

picture: setup ## write the picture of the README from the measurements of the demo (root)
	PYTHONPATH=. $(PYTHON) examples/demo --picture docs/assets/demo.svg

.PHONY: dashboard
dashboard: setup ## evaluate the dashboard and the alerts with data of a real agent (root; needs Prometheus); ARGS=--prometheus=FILE
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/plots.txt
	PYTHONPATH=. $(PYTHON) bench/dashboard.py $(ARGS)

bench: setup ## measure the cost and the accuracy of a decision; BASE=commit compares with a commit in one run (root)
	PYTHONPATH=. $(PYTHON) bench/$(if $(BASE),paired.py $(BASE),run.py) $(ARGS)

bench-idle: setup ## measure the processor time of an idle agent with many addresses, CNI results and rejected attachments (root, 15 min)
	PYTHONPATH=.:operator $(PYTHON) bench/idle.py $(ARGS)

bench-live: setup ## measure the processor time of an agent whose live figures are read once a second (root, 7 min)
	PYTHONPATH=.:operator:bench $(PYTHON) bench/live.py $(ARGS)

bench-top: cluster-setup ## measure the screens of kubectl tokenbucket top on a cluster with 110 limited pods (root, 10 min)
	PYTHONPATH=.:tests/e2e:bench $(PYTHON) -m bench.top $(ARGS)

bench-annotations: cluster-setup ## measure changes of annotations on a Kubernetes cluster (root, 5 min)
	PYTHONPATH=.:tests/e2e:bench $(PYTHON) -m bench.annotations $(ARGS)

bench-cluster: cluster-setup ## measure new pods, rate changes and memory on a Kubernetes cluster (root)
	PYTHONPATH=.:tests/e2e:bench $(PYTHON) -m bench.cluster $(ARGS)

bench-cluster-peers: cluster-setup ## compare with the CNI bandwidth plugin on a Kubernetes node in a virtual machine (root, 20 min)
	PYTHONPATH=.:tests/e2e:bench $(PYTHON) -m bench.beside_plugin $(ARGS)

bench-fleet: cluster-setup ## measure hundreds of agents with a real API server (root, 10 min)
	PYTHONPATH=.:tests/e2e:bench $(PYTHON) -m bench.fleet $(ARGS)

bench-peers: cluster-setup ## compare with the CNI plugin, HTB and police on a Debian kernel in a virtual machine (root, 100 min)
	PYTHONPATH=.:tests/e2e $(PYTHON) -m bench.peers_in_machine $(ARGS)

bench-plots: setup ## write the plots and tables of docs/benchmarks/limiters.md; RESULTS= names the file of bench-peers --results
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/plots.txt
	$(PYTHON) bench/plot.py $(RESULTS) docs/benchmarks/plots
	PYTHONPATH=.:operator $(PYTHON) bench/peers_tables.py $(RESULTS)
	$(PYTHON) bench/choice_plots.py

tokenbucket.o: $(OBJECT) ## compile the program with clang to build/tokenbucket.o, for stock tc

$(OBJECT): $(wildcard operator/bpf/*.[ch])
	mkdir -p $(@D)
	clang -O2 -g -Wall -Wextra -Werror -target bpf -I operator/bpf -I $(ASM_HEADERS) -c operator/bpf/token_bucket.c -o $@

docs: setup ## build the documentation site in build/site, and check all links
	test -x $(DOCS_VENV)/bin/mkdocs || /usr/bin/python3 -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/docs.txt
	NO_MKDOCS_2_WARNING=true $(DOCS_VENV)/bin/mkdocs build --strict

generate: setup ## write all generated files: struct mirror, docs/reference, the support matrix, and the CRDs and values table of the chart
	$(PYTHON) hack/layout.py
	$(PYTHON) hack/cli_reference.py
	$(PYTHON) hack/plugin_reference.py
	$(PYTHON) hack/metrics_table.py
	$(PYTHON) hack/reasons_reference.py
	$(PYTHON) hack/alerts_reference.py
	$(PYTHON) -m hack.support_matrix
	hack/sync_crds.sh
	$(PYTHON) hack/chart_readme.py

verify: generate ## fail if a generated file differs from the committed file
	git diff --exit-code -- operator/tokenbucket/layout.py operator/tokenbucket/core/limits/counters.py docs/reference charts README.md

plugin-archive: $(STAMP) ## build the archive of the kubectl plugin, and its manifest for krew, in dist/
	$(PYTHON) hack/release/krew/build.py dist

chart-archive: ## package the chart in dist/; DIGEST=sha256:... names the image (needs helm)
	$(if $(DIGEST),hack/release/set-digest.sh $(DIGEST))
	helm package charts/tokenbucket --destination dist

lock: ## update all pins to the newest versions that pyproject.toml permits (needs network access)
	hack/lock.sh $(LOCK)

clean: ## remove .venv and all build results and caches
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find operator tests bench examples hack -name __pycache__ -prune -exec rm -rf {} +
