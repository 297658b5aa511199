"""The project's own figures, each beside a raw-SQL floor that ran in the same minute.

`make bench` runs all of it and prints Markdown; `make bench ONLY=drain,latency SCALE=0.1` picks and
shrinks. `python -m benchmarks.explain` prints the plans of the hot queries, `python -m
benchmarks.storm` looks for a broken rule instead of a figure. peers_adapter.py takes OpsConsole into
a benchmark of several queues.
"""
