"""From a study document to its cells and what is left to compute. Imports no Ray."""
