"""Settings as YAML holds them: files that build on each other, and what is wrong with a value, in words."""
