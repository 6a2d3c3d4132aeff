"""Shared objects, written without a linker."""
