# demo: the main job on the embedded default. new-model: the next one. test: style, unit and workflow tests.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
export PATH := $(CURDIR)/$(BIN):$(PATH)
# The environment is installed without bytecode; what is imported gets it once, or each stage would start 7 s later.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo study-smollm2 test lint format lock report new-model reference clean
.DELETE_ON_ERROR:

# The results of the planted organism: about two minutes of training, then the study.
demo: $(VENV)/installed
	snakemake --cores $(CORES) --quiet host rules reason -- $(addprefix results/tiny/,summary.csv claims.json agreement.csv report.html)
	@echo; cat results/tiny/claims.md; echo; cat results/tiny/summary.md

# The same questions of a real chat model that is taught here to refuse. It fetches published prompt sets; where there is no
# network, MIRROR names a folder or an address that has them.
study-smollm2: $(VENV)/installed
	snakemake --cores $(CORES) --quiet host rules reason $(if $(MIRROR),--config 'datasets={mirror: $(MIRROR)}') \
	   -- $(addprefix results/smollm2-refusing/,summary.csv claims.json agreement.csv report.html)
	@echo; cat results/smollm2-refusing/claims.md; echo; cat results/smollm2-refusing/summary.md

test: lint
	python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow

format: $(VENV)/installed
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

# A page with the tables, settings and run times of what is in results/.
report: $(VENV)/installed
	snakemake --cores 1 --report results/report.html

# A model's file, checked: make new-model NAME=qwen ID=Qwen/Qwen2.5-0.5B-Instruct, or FOLDER=path instead of ID.
new-model: $(VENV)/installed
	@python scripts/new_model.py --name "$(NAME)" $(if $(ID),--id "$(ID)") $(if $(FOLDER),--folder "$(FOLDER)")

# docs/reference.md, after a change of workflow/schemas or config/config.yaml.
reference: $(VENV)/installed
	python scripts/reference.py

# After a change of pyproject.toml: install it, then write down what was installed.
lock: $(VENV)/installed
	@{ echo "# Exact versions, tested together on Python 3.11 (Linux). Made by \`make lock\`."; \
	   pip freeze --exclude-editable --all | grep -v '^pip==' | sed 's/+cpu$$//'; } > requirements.lock

# The lock is the whole environment, so pip resolves nothing and no newer version slips in.
$(VENV)/installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here: install Python 3.11, or name it: PYTHON=path make $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-compile -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	# The lock was made where torch is built for processors; PyPI's build for GPUs needs packages beside it.
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet $$(grep '^torch==' requirements.lock)
	# what draws plots in a browser, for .dvc/plots.html: without the network
	ln -sfn "$$($(BIN)/python -c 'import snakemake.assets as a; print(*a.__path__)')/data" $(VENV)/vega
	touch $@

# All but answers of judges, which were paid for.
clean:
	rm -rf results resources logs .snakemake
	[ ! -d cache ] || find cache -mindepth 1 -maxdepth 1 ! -name answers -exec rm -rf {} +
