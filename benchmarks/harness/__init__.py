"""The harness of `benchmarks/run.py`: implementations in worker processes that take turns.

`workload` says what is computed, `implementation` how (one class per way: `ours`, `torch_eager`,
`jax_jit`; `limits` are the machine's own). `worker` is the process that holds one implementation,
`pool` the parent's side of it, `measure` the turns and their statistics, `report` and `chart` what
is written. Only NumPy is imported at the top: a worker loads its own framework and no other.
"""
