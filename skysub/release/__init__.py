"""Releases: results of a campaign as Zarr and Parquet that any tool opens, with checksums and provenance."""
