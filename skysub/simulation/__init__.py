"""Visits whose sky is known, and how close a background model came to it."""
