"""The parts of a fit of all detectors of a visit together."""
