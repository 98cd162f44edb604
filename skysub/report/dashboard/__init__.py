"""Pages of a campaign that are made as they are asked for, from the store alone, also while it runs."""
