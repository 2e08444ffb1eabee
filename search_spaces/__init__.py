"""What a search may vary: search spaces as YAML files, and their typed reader."""
