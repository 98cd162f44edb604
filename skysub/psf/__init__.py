"""The point-spread function of one detector: its stars, and a model that varies over it."""
