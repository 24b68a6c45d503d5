PYTHON ?= python3
BIN := .venv/bin
# Without --no-compile, pip compiles 17,000 files of which few are ever imported.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
RUN := runs/demo-$(shell date +%Y-%m-%d_%H-%M-%S)

# Processes that share two cores must not spin while they wait; TensorFlow's start-up notes are noise.
export OMP_WAIT_POLICY = PASSIVE
export TF_CPP_MIN_LOG_LEVEL = 3

.PHONY: demo test install lint clean

demo: install  ## train the tagger, export it, serve it from a fresh process
	$(BIN)/kseq run apps/char_tagging.py --backend tensorflow --output $(RUN) --export
	$(BIN)/kseq predict $(RUN)/saved_model noisily actress accurate beautify

test: lint  ## the whole suite, once a backend; two processes with a thread each, a file of tests in one of them
	KERAS_BACKEND=tensorflow OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup
	KERAS_BACKEND=jax OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup
	KERAS_BACKEND=torch OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("kseq needs Python 3.11 or newer; set PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(INSTALL) torch==2.13.0
	$(INSTALL) -e '.[all,dev]'
	@touch $@

clean:
	rm -rf .venv .cache
