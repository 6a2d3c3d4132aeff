"""Passes: graphs to better graphs, graphs to plans, plans to better plans; one pass a file."""
