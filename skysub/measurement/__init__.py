"""Detection, deblending and measurement of the sources of one visit image, and their table."""
