"""Side-by-side measurements against real peers; `python -m bench --help`."""
