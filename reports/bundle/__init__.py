"""The `tiekd bundle` command: everything that makes the report of a study again, in one zip file."""
