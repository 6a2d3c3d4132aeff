"""Graph -> Graph: the same values by fewer or cheaper nodes."""
