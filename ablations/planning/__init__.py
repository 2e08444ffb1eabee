"""Plan studies and searches: documents, cells, and what the store already has. Imports no Ray, Optuna or PyTorch."""
