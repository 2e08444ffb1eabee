"""Making a teacher's depth maps with a network trained here or a model of Hugging Face."""
