"""Networks: the students' encoder, decoder and heads, and the published teachers' architectures."""
