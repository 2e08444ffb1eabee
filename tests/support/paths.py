"""Where tests find the project's own files, and the reference data that may lie beside a checkout."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
