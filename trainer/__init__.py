"""Meta-trainer: learns weights, step sizes and meta attention in PyTorch."""
