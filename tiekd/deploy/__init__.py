"""What a trained network leaves the project as: a teacher's depth maps, ONNX, a model folder, a profile of its costs.

Also brings networks in: checkpoints of the released code, and depth models of Hugging Face as teachers.
"""
