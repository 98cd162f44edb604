"""Sources: found, masked for the sky's sake, and measured."""
