"""Any language model of Hugging Face: its parts, tokens, weights, and runs of a few blocks."""
