"""What may vary: YAML search spaces and their typed reader."""
