# make demo       install, export the bundled checkpoint, verify the result
# make test       install, run every test
# make test-npm   run those tests again that need npm's packages, or try more with them
# make quick      run the core's unit tests, but for the slow ones (a minute)
# make lint       ruff, mypy --strict, import contracts, and Biome for JavaScript and style sheets (from npm)
# make bench      measure exports, latency, runtimes for devices, growth, engine builds, repairs, tunes and training's shift, and write a page
#                 of docs/benchmarks.md for each (50 minutes); ONLY=repair, or another, measures one part
# make gpu        what works on this machine's NVIDIA GPU, and how fast, in six minutes and without a network; WRITE=docs writes
#                 docs/benchmarks/gpu.md, too; BUDGET=540 gives it that many seconds
# make accuracy   what fp16 and int8 cost on 10,000 images (minutes)
# make reliability  try every promise of docs/reliability.md as often as it says, and write it (45 minutes)
# make tutorials  follow docs/tutorials from nothing, as a stranger would: a fresh clone, an empty home (half an hour; PAGE=first-model, or another)
# make thorough   try in more settings what make test tries in a few (minutes)
# make fuzz       100,000 damaged inputs and more, to everything that reads files (minutes)
# make oldest     run the tests with the oldest versions that pyproject.toml allows (ten minutes)
# make arm        verify bundles on emulated ARM processors, where qemu-user and Debian 12 are (minutes)
# make docs       build the documentation site into build/site; open build/site/index.html
# make docs-output  run what README.md and docs print again, and write what has changed, docs/reference, too (minutes)
# make licenses   write docs/dependencies.md and constraints-oldest.txt
# make dist       build wheel and source distribution into dist/, check both, and try the wheel in empty environments (minutes)
# make web        export the bundled checkpoint as a web page, and serve it to this machine
# make web-deps   what the page, its tests, the JavaScript examples and make lint need from npm
# make venv       .venv with everything for development; TORCH_INDEX=https://download.pytorch.org/whl/cpu takes PyTorch's build
#                 for CPUs alone, without 5 GB of CUDA

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
STAMP := $(VENV)/.installed
EXAMPLE := examples/fashion_mnist.pt
BUNDLE := fashion_mnist-onnx-fp32
SITE := fashion_mnist-web-fp32
NODE_STAMP := node_modules/.package-lock.json
DATASET ?= /usr/share/datasets/fashion-mnist

# What each process compiles of this project is kept, whatever the caller's environment says: tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: venv demo test test-npm tutorials quick thorough lint bench gpu accuracy reliability fuzz oldest arm docs docs-output licenses dist web web-deps clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo 'Installing PyTorch, the runtimes and what tests need into $(VENV): 2 GB or more, which takes minutes'
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch)
	$(PIP) -e '.[export,trt-rtx,openvino,litert,vela,executorch,coreml,plot,sign,bench,loadgen,dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/s2mlp-inspect $(EXAMPLE)
	$(BIN)/s2mlp-export $(EXAMPLE) --data examples/test_images --force -o $(BUNDLE)
	$(BIN)/s2mlp-verify $(BUNDLE) --per-block
	@echo 'The commands are in $(BIN): call $(BIN)/s2mlp-export, or first run: . $(BIN)/activate'

# Tests that need nothing of npm's come before its packages do: so in a fresh clone they are known to need nothing.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not npm' --cpu 10
	@$(MAKE) --no-print-directory web-deps || echo "npm's packages cannot be had here: what needs them is skipped"
	@$(MAKE) --no-print-directory test-npm

# By file, since their fixtures take longest. Looking for the tests in all modules would take as long as a tenth of them.
test-npm: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist loadfile -m npm --cpu 10 $$(grep -rl 'mark\.npm' tests --include='test_*.py')

quick: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/unit --ignore tests/unit/bench --ignore tests/unit/studies -m 'not slow and not npm'

thorough: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m thorough --thorough

lint: $(STAMP) $(NODE_STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	node_modules/.bin/biome ci --error-on-warnings

bench: $(STAMP)
	$(BIN)/python -m s2mlp_studies.presets --write docs $(ONLY:%=--only %)

# With PYTHON alone, so that it runs on machines whose packages were brought along; everything is in build/gpu.json.
gpu:
	PYTHONPATH=$(CURDIR):$(CURDIR)/exporters:$(CURDIR)/bench:$(CURDIR)/bench/studies:$$PYTHONPATH $(if $(wildcard $(STAMP)),$(BIN)/python,$(PYTHON)) -m s2mlp_studies.gpu_report --json-file build/gpu.json $(BUDGET:%=--seconds %) $(WRITE:%=--write %)

reliability: $(STAMP) $(NODE_STAMP)
	$(PIP) --quiet ray==2.60.0 mlflow-skinny==3.17.2 sqlalchemy alembic
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/reliability/test_*$(ONLY)*.py --thorough --write docs/reliability.md

fuzz: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/reliability/test_fuzz.py --thorough

# torch's oldest build for the CPU alone is newer than the oldest that is allowed. Old packages warn of newer ones. Left out are tests of
# what old packages do otherwise, not this project: onnx's reference implementation knows no bfloat16, NumPy 1 names its modules
# otherwise and loads more of them, and matplotlib sets text closer.
oldest:
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt \
		-e '.[export,openvino,plot,bench,sbom,loadgen]' 'torch==2.13.*' 'cyclonedx-python-lib[json-validation]' hatchling hypothesis pytest
	build/oldest/bin/python -m pytest -q -o filterwarnings=default --ignore tests/reliability \
		--deselect tests/unit/passes/test_bfloat16.py::test_the_reference_implementation_keeps_the_tolerance_with_it \
		--deselect tests/unit/checkpoint/test_load.py::test_options_written_by_other_systems_and_versions_are_read \
		--deselect tests/unit/test_imports.py::test_only_the_base_dependencies_are_loaded \
		--deselect tests/unit/bench/test_pictures.py::test_the_same_measurements_give_the_same_bytes \
		--deselect tests/unit/studies/test_scale.py::test_no_label_covers_another_or_leaves_the_picture \
		--deselect tests/unit/studies/test_scale.py::test_the_picture_shows_each_model_with_its_exponent_and_interval

# In an environment of its own: what builds pages has no part in what is tested.
DOCS := build/docs-env

$(DOCS)/.installed: pyproject.toml constraints.txt constraints-docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-docs.txt -e '.[docs]'
	touch $@

docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict

docs-output: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m helpers.printed_outputs
	PYTHONPATH=tests $(BIN)/python -m helpers.reference
	PYTHONPATH=tests $(BIN)/python -m helpers.tutorials --here --write

tutorials: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m helpers.tutorials $(PAGE)

dist: $(STAMP)
	$(BIN)/s2mlp-export $(EXAMPLE) --force -o build/release-bundle
	PYTHONPATH=tests $(BIN)/python -m helpers.release build/release-bundle

arm: $(STAMP)
	$(BIN)/python tests/arm/check.py $(CPUS)

licenses: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m helpers.licenses > docs/dependencies.md
	PYTHONPATH=tests $(BIN)/python -m helpers.oldest > constraints-oldest.txt

# What fp16 and int8 cost on all 10,000 test images; Debian's package dataset-fashion-mnist has them.
accuracy: $(STAMP)
	rm -rf build/accuracy
	$(BIN)/python examples/save_images.py $(DATASET) build/accuracy/test --count 1000
	$(BIN)/python examples/save_images.py $(DATASET) build/accuracy/train --part train --count 26
	for target in x86 trt; do (mkdir build/accuracy/$$target && cd build/accuracy/$$target && \
		$(CURDIR)/$(BIN)/s2mlp-export $(CURDIR)/$(EXAMPLE) --precision fp32 --precision fp16 --precision int8 \
		--target $$target --data ../test --data-count 10000 --calibration ../train --max-accuracy-drop 0.2) || exit; done

web: $(STAMP) $(NODE_STAMP)
	$(BIN)/s2mlp-export $(EXAMPLE) --data examples/test_images --format web --force -o $(SITE)
	$(BIN)/python $(SITE)/serve.py

web-deps: $(NODE_STAMP)

$(NODE_STAMP): package.json package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund --silent
	touch $@

clean:
	rm -rf $(VENV) $(BUNDLE) $(SITE) node_modules build dist
