# The two commands: `make demo` and `make test`. Both need only Python 3.11 or newer and make.
SHELL := /bin/sh
PYTHON ?=
UPGRADE ?=
export PYTHON
bin := .venv/bin
uv := $(bin)/python -m uv --quiet pip compile pyproject.toml $(if $(UPGRADE),--upgrade) \
	--universal --python-version 3.11 --generate-hashes --no-header --no-config
# The type checker and `makemigrations` load the settings; none of them keeps a session.
for_checks := SECRET_KEY=only-for-checks

.DEFAULT_GOAL := help
.PHONY: help demo test check lock reset clean runtime dev

help: ## say what there is
	@echo "make demo    run OpsConsole at http://127.0.0.1:8000/ (PORT, DATABASE_URL, OPSCONSOLE_HOME)"
	@echo "make test    check and test everything"
	@echo "make check   linters and types only"
	@echo "make reset   stop the demo and empty its data folder"
	@echo "make lock    pin the requirements of pyproject.toml again (UPGRADE=1 takes newer ones)"
	@echo "make clean   remove .venv and the tools' caches"
	@echo "PYTHON=...   the Python to use, instead of the newest of 3.11 to 3.13 that is found"

demo: runtime
	@exec $(bin)/python manage.py demo

reset: runtime
	@exec $(bin)/python -m opsconsole.demo.reset

test: check
	$(bin)/python -m pytest

check: dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(for_checks) $(bin)/python -m mypy .
	DJANGO_SETTINGS_MODULE=tests.settings $(bin)/python -W error manage.py makemigrations --check

runtime:
	@sh scripts/bootstrap.sh requirements.txt

dev:
	@sh scripts/bootstrap.sh requirements-dev.txt

lock: dev
	$(bin)/python -m pip install --quiet 'uv>=0.13,<0.14'
	$(uv) --output-file requirements.txt
	$(uv) --group dev --constraint requirements.txt --output-file requirements-dev.txt

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
