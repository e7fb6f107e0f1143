"""What the kernels cost: instructions on every emulated core, time on this computer. `python -m benchmarks.kernels`."""
