"""LLVM instructions on typed values, and where elements are."""
