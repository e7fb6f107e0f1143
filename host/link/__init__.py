"""The serial link: frames, protocol, transports."""
