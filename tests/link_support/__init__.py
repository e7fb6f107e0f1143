"""What the tests of the link share: a small stand-in for pmeta_model in C and in Python, and faulty transports."""
