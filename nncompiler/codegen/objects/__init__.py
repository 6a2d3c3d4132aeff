"""From the text of modules to object code."""
