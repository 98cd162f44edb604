"""Skies with known truth, made by GalSim and NumPy: nothing here shares code with `skysub.simulation`."""
