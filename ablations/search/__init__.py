"""Hyperparameter search: Optuna samplers and storage behind Ray Tune."""
