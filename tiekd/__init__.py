"""TIE-KD: teacher-independent, explainable knowledge distillation for monocular depth estimation."""
