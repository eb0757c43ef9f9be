# Aliases only: everything lives in run.py, which needs no make.
PYTHON ?= python3

.PHONY: run test check lock
run:
	$(PYTHON) run.py
test:
	$(PYTHON) run.py test
check:
	$(PYTHON) run.py check
lock:
	$(PYTHON) run.py lock
