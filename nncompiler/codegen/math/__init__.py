"""Transcendental functions as formulas of basic operations."""
