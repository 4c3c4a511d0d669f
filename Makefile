# Everything is in bootstrap.py; these are names for it.
.NOTPARALLEL:
.PHONY: demo test lint clean

demo:
	@python3 bootstrap.py demo
test:
	@python3 bootstrap.py test
lint:
	@python3 bootstrap.py lint
clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis out build dist
