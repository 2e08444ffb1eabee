"""Caches of decoded frames and maps: in the memory of one process, or packed in files that all processes share."""
