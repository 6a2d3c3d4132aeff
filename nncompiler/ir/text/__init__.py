"""The text of Graphs and Plans: printers and parsers, side by side in one module per level."""

from nncompiler.ir.text.graph import (
    function_lines,
    parse_function,
    parse_functions,
    print_function,
)  # fmt: skip
from nncompiler.ir.text.plan import parse_plan, parse_plans, plan_lines, print_plan

__all__ = [
    "function_lines", "parse_function", "parse_functions", "parse_plan", "parse_plans",
    "plan_lines", "print_function", "print_plan",
]  # fmt: skip
