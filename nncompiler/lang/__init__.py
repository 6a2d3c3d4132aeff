"""The language: text -> syntax tree (`parse.parse`) -> network (`elaborate.elaborate`).

`fmt.format_source` formats a file. Nothing is imported here: what is not needed is not loaded, and
a function that has the name of its module could not be offered beside it.
"""
