"""One file per operator: C kernel ≡ simulator by bytes, simulator ≈ PyTorch in float64."""
