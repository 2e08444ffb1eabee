"""Decoded frames kept for reuse: in the memory of one process, or packed in files that all processes share."""
