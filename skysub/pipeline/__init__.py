"""The order of steps for one detector or one visit, as plain functions of values."""
