"""One file per workload; what a file must hold is said in `harness/workload.py`."""
