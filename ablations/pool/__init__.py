"""Processes of a Ray cluster that share the work of a command on many frames."""
