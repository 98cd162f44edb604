"""FITS layouts of visits: one reader per layout, and the writers."""
