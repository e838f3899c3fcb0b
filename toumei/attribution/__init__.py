"""Which parts of the input made the network decide so: gradients, DeepLift, Shapley values and LIME."""
