"""The commands of pmeta-train, one file each. They import torch only when they compute."""
