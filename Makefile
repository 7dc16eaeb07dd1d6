# make demo    install, export the bundled checkpoint, verify the result
# make test    install, run every test
# make lint    ruff, mypy --strict, import contracts
# make bench   measure export time, memory and latency (minutes)
# make venv    .venv with everything for development

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXAMPLE := examples/fashion_mnist.pt
BUNDLE := fashion_mnist-onnx-fp32

.PHONY: venv demo test lint bench clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[export,trt-rtx,openvino,plot,bench,dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/s2mlp-inspect $(EXAMPLE)
	$(BIN)/s2mlp-export $(EXAMPLE) --data examples/test_images --force -o $(BUNDLE)
	$(BIN)/s2mlp-verify $(BUNDLE) --per-block

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) $(BUNDLE) build dist
