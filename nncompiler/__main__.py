"""`python -m nncompiler` is `nnc`."""

from nncompiler.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
