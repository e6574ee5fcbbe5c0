# Every target sets itself up in .venv on first use; see go.py. `make test ARGS='-k mirror'` passes arguments on.
PYTHON ?= python3
ARGS ?=

.PHONY: demo test proofs lint docs check-docs ci clean
.NOTPARALLEL:

demo test proofs lint docs check-docs:
	@$(PYTHON) go.py $@ $(ARGS)

# what .ci/run asks of every change
ci: proofs test lint check-docs

clean:
	rm -rf .venv out docs/_build docs/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis .jupyter_cache
