"""Showing and logging a study's progress. Imports no Ray."""
