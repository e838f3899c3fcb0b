"""Language models: where the parts of an architecture are, causal tracing and model editing."""
