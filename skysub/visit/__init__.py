"""What a visit is, and how it lies in files."""
