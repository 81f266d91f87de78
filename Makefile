# Each target is a line or two; the work is in the programs it calls. Windows: README.md has the plain commands.
.PHONY: lab test quick lessons classroom bench habits

READY := .venv/ready
ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)  # in containers one is often root, which Jupyter asks about

lab: $(READY)
	.venv/bin/jupyter lab $(ROOT) lessons/index.ipynb

test: .venv/ready-for-tests
	.venv/bin/python -m pytest -n 2 --dist loadgroup

quick: .venv/ready-for-tests
	.venv/bin/python -m pytest -n 2 --dist loadgroup -m "not slow and not browser and not heavy"

lessons: $(READY)
	.venv/bin/autograder build
	.venv/bin/python benchmarks/lessons.py

classroom: $(READY)
	.venv/bin/autograder classroom

bench: .venv/ready-for-tests
	.venv/bin/python -m pytest -m heavy
	for side in benchmarks/*.py; do .venv/bin/python $$side || exit 1; done

habits: .venv/ready-for-tests
	.venv/bin/pre-commit run --all-files

$(READY): pyproject.toml constraints.txt setup.sh
	./setup.sh

.venv/ready-for-tests: $(READY)
	./setup.sh --tests
