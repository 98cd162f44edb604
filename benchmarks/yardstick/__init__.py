"""Scenes with known sources, the methods that measure them, and the scores."""
