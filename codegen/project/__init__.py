"""The generated PlatformIO project: files, manifest, board support."""
