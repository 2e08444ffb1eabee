"""The content of a report: its pages, tables, notes and files."""
