"""What a report says: its pages, tables, notes and files."""
