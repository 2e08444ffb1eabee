"""Cells, statistics and tables."""
