# The interpreter that makes the environment, and where everything goes.
PYTHON ?= python3
BIN := .venv/bin
SITE := docs/_build/html
SPHINX := $(BIN)/python -m sphinx -b html -W -n --keep-going -c . -d docs/_build/doctrees docs
# What writes a lock: of the site and its pages, and of uv alone in the same version.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
	--generate-hashes --custom-compile-command "make lock"
PAGES = $$($(BIN)/python docs/_ext/gallery/pages.py)
LOCK = $(COMPILE) requirements-docs.in $(PAGES) -o
# One page alone: make html PAGE=plot_sgd_solvers
ONE := $(if $(PAGE),-D gallery_page=$(PAGE))
# Sphinx warns of a document only when it reads it: after a failure it reads all again.
FORGET := { rm -rf docs/_build/doctrees 2> /dev/null; exit 1; }

# Which Python the environment may have.
CHECK := $(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or \
	sys.exit("Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is %d.%d: try make PYTHON=python3.13" % v)'

# The pages are built on the CPU, wherever they are built.
export JAX_PLATFORMS := cpu
# TensorFlow only reads data here; what its C++ code says of the CPU helps nobody.
export TF_CPP_MIN_LOG_LEVEL := 3
export TF_ENABLE_ONEDNN_OPTS := 0
# The same build wherever it runs: files are UTF-8, and what Python is told to warn of is
# for the code of who told it. Warnings of pages count in any case.
export PYTHONUTF8 := 1
unexport PYTHONWARNINGS

.PHONY: help html html-noplot serve data test test-latest bench lint copies lock licenses \
	audit linkcheck clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/  make \1 	\2/p' Makefile | expand -t 20

html: data  ## build the site into docs/_build/html; PAGE=plot_x runs that page alone
	$(SPHINX) $(ONE) $(SITE) || $(FORGET)
	@echo "The site is in $(SITE)/index.html"

html-noplot: .venv/installed  ## the same, but run no page
	$(SPHINX) -D plot_gallery=0 $(SITE) || $(FORGET)
	@echo "The site is in $(SITE)/index.html"

serve: html  ## show the site on http://localhost:8000, on this machine alone
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(SITE) 8000

data: .venv/installed  ## get and prepare Fashion-MNIST
	$(BIN)/python tools/prepare_data.py

# Whole files in each of two processes, for fixtures serve all of one, and in their order.
test: html  ## run all tests, on the built site too
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

test-latest: .venv/installed  ## run all tests on a copy, with the newest versions allowed
	rm -rf .latest && mkdir .latest
	git ls-files -z > .latest/.files
	tar --null -T .latest/.files -cf .latest/.tar && tar -xf .latest/.tar -C .latest
	$(LOCK) .latest/requirements-docs.txt
	$(MAKE) -C .latest test

bench: data  ## time the flagship in turns with the loop it replaced, 15 minutes
	$(BIN)/python benchmarks/bench.py

lint: .venv/installed  ## check style, spelling and safety
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m codespell_lib
	$(BIN)/python -m sphinxlint --ignore docs/_build --ignore docs/auto_examples docs examples
	$(BIN)/zizmor --offline --quiet --strict-collection .github

copies: .venv/installed  ## write what pages share, and README's answers
	PYTHONPATH=docs/_ext $(BIN)/python tools/copies.py

lock: .venv/installed  ## write requirements-docs.txt and requirements-uv.txt anew
	$(LOCK) requirements-docs.txt
	echo uv | $(COMPILE) -c requirements-docs.txt - -o requirements-uv.txt

licenses: .venv/installed  ## print a table of what is installed, with licences
	@$(BIN)/python -m piplicenses --format=markdown --with-system

audit: .venv/installed  ## report known faults of what is locked for this Python
	@$(BIN)/python -m pip_audit --format=markdown --require-hashes --disable-pip -r requirements-docs.txt

linkcheck: data  ## check the links to other sites, and the lists of what these have
	$(BIN)/python tools/check_inventories.py
	$(SPHINX) -b linkcheck docs/_build/linkcheck

clean:  ## delete what was built; environment and data stay
	rm -rf docs/_build docs/auto_examples .latest

# An environment that is there stays, with its Python; its packages become those of the
# lock. The stamp is written last, so an installation that was cut short starts over.
.venv/installed: requirements-docs.txt requirements-uv.txt tools/install.py
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || { $(CHECK) && $(PYTHON) -m venv --clear .venv; }
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements-uv.txt
	$(BIN)/python tools/install.py requirements-docs.txt
	touch $@
