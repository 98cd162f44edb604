"""How a campaign is kept: places, runs and their markers, arrays, and what a marker says in words."""
