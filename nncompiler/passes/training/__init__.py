"""Graph -> Graph: gradients, optimizers, and the functions of training."""
