"""Graph -> Graph: nodes in groups, one for each kernel."""
