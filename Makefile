# The two commands: `make demo` and `make test`. Both need only Python 3.11 or newer and make.
SHELL := /bin/sh
PYTHON ?=
UPGRADE ?=
export PYTHON
bin := .venv/bin
uv := $(bin)/python -m uv --quiet pip compile $(if $(UPGRADE),--upgrade) \
	--universal --generate-hashes --no-header --no-config
# The type checker and `makemigrations` load the settings; none of them keeps a session.
for_checks := SECRET_KEY=only-for-checks

.DEFAULT_GOAL := help
.PHONY: help demo test test-newest check bench lock reset clean runtime dev

help: ## say what there is
	@echo "make demo    run OpsConsole at http://127.0.0.1:8000/ (PORT, DATABASE_URL, OPSCONSOLE_HOME)"
	@echo "make test    check and test everything"
	@echo "make test-newest  the tests on the newest Django; needs Python 3.12 or newer"
	@echo "make check   linters and types only"
	@echo "make bench   measure the queue beside bare SQL (ONLY=drain,latency SCALE=0.1 REPS=1)"
	@echo "make reset   stop the demo and empty its data folder"
	@echo "make lock    pin the requirements of pyproject.toml again (UPGRADE=1 takes newer ones)"
	@echo "make clean   remove .venv and the tools' caches"
	@echo "PYTHON=...   the Python to use, instead of the newest of 3.11 to 3.13 that is found"

demo: runtime
	@exec $(bin)/python manage.py demo

reset: runtime
	@exec $(bin)/python -m opsconsole.demo.reset

# Tests wait for other processes a good deal, so several run at once, in processes that have a server
# each. Where a server is given they take turns: its roles are those of all its databases.
pytest := -m pytest -n $(if $(DATABASE_URL),0,3) --dist loadgroup

test: check
	$(bin)/python $(pytest)

# What has nothing to do with Django's version: browsers, bare SQL, processes that are killed.
same_on_any_django := $(addprefix --ignore tests/test_,$(addsuffix .py,bootstrap browser contract contract_projects \
	contract_settle embedded_postgres payment_browser properties races restart storm webhook_processes)) \
	$(addprefix --deselect tests/test_demo.py::test_,a_dead_worker_and_a_killed_demo_are_recovered_from \
	it_can_be_stopped_while_it_starts only_its_owner_can_read_the_secrets)

test-newest:
	@BOOTSTRAP_VENV=.venv-newest BOOTSTRAP_LEAST=3.12 sh scripts/bootstrap.sh requirements-dev.txt requirements-newest.txt
	DJANGO_SETTINGS_MODULE=tests.settings .venv-newest/bin/python -W error manage.py makemigrations --check
	.venv-newest/bin/python $(pytest) $(same_on_any_django)

check: dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(for_checks) $(bin)/python -m mypy .
	DJANGO_SETTINGS_MODULE=tests.settings $(bin)/python -W error manage.py makemigrations --check

bench: runtime
	@exec $(bin)/python -m benchmarks --only "$(ONLY)" --scale "$(or $(SCALE),1)" --reps "$(or $(REPS),3)"

runtime:
	@sh scripts/bootstrap.sh requirements.txt

dev:
	@sh scripts/bootstrap.sh requirements-dev.txt

lock: dev
	$(bin)/python -m pip install --quiet 'uv>=0.13,<0.14'
	$(uv) --python-version 3.11 pyproject.toml --output-file requirements.txt
	$(uv) --python-version 3.11 pyproject.toml --group dev --constraint requirements.txt \
		--output-file requirements-dev.txt
	@# Only what the newest Django changes: test-newest installs it over requirements-dev.txt.
	echo 'django>=6' | $(uv) --python-version 3.12 - --output-file requirements-newest.txt

clean:
	rm -rf .venv .venv-newest .mypy_cache .pytest_cache .ruff_cache .hypothesis
