"""What many visits say of a camera's detectors: offsets, steps of amplifiers and sky frames."""
