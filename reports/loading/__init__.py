"""The run store as data frames."""
