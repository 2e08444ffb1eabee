"""Taking a trained network elsewhere: ONNX, the Hugging Face hub, its costs, and released checkpoints brought in."""
