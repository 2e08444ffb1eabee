"""The figures of a report, each written as PNG and SVG with its data as CSV."""
