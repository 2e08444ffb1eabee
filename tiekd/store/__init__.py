"""The run store: one folder per run, on a disk or an object store. This package does not import PyTorch."""
