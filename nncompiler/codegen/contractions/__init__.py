"""The strategy for sums of products: register tiles, packed copies, rounds."""
