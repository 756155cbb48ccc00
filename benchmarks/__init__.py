"""Reproducible measurements; see README.md."""
