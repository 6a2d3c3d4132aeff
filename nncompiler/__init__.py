"""nncompiler: a static-graph compiler for neural networks."""
