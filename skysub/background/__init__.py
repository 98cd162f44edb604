"""The background of one image: arrays in, model out."""
