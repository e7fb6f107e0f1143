"""PlatformIO development platform of a pmeta project: compilers and emulator come from the system."""

from platformio.public import PlatformBase


class PmetaPlatform(PlatformBase):
    def is_embedded(self):
        # Every board, this computer too, is started by `upload` and then spoken to over its port.
        return True
