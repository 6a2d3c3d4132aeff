"""The strategies for loop nests."""
