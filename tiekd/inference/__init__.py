"""Predicting depth with a trained network, and scoring depth maps."""
