"""Host tool: streams samples to a device and checks it against the simulator."""
