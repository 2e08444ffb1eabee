"""The report's figures, each written with its data."""
