"""The device as the host sees it: one method per command, typed, with payloads packed and checked here."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from pmeta.codegen.errors import DeviceError
from pmeta.codegen.manifest import Manifest
from pmeta.codegen.numerics import VARIANTS, Numerics
from pmeta.codegen.targets import Target, target_bytes
from pmeta.host.link.frames import MAX_PAYLOAD, Command
from pmeta.host.link.protocol import Client

Float32Array = npt.NDArray[np.float32]

_HELLO = struct.Struct("<16s6IQ3I")


@dataclass(frozen=True)
class Hello:
    """What the device says of itself and of the adaptation it is in."""

    firmware_id: str  # 32 hex digits
    sample_bytes: int
    ways: int
    steps: int  # K
    tensors: int
    max_payload: int
    stack_bytes: int  # most stack used since its start; 0 where unknown
    adaptation_id: int  # what RESET was told; 0 since its start
    step: int  # 1 .. K, K + 1 when adaptation is done
    samples: int  # received in this step
    variant: int  # of the numerics, by number

    @property
    def numerics(self) -> Numerics:
        """How its core computes."""
        return VARIANTS[self.variant]


@dataclass(frozen=True)
class SampleResult:
    """One support sample's outcome, computed with the weights before the step."""

    logits: Float32Array  # (ways,)
    loss: np.float32


class Device:
    """Typed requests over a `Client`. Call `hello` first: the other methods need the sizes it brings.

    Every method may raise LinkError (no answer), DeviceError (a refusal) and SessionLost (say hello again).
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._hello: Hello | None = None

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @property
    def where(self) -> str:
        """The port, for errors."""
        return self._client.where

    def hello(self) -> Hello:
        """Starts a new session. Changes nothing about the adaptation the device is in."""
        payload = self._client.start_session()
        if len(payload) != _HELLO.size:
            raise self._nonsense("HELLO", len(payload))
        firmware_id, *numbers = _HELLO.unpack(payload)
        hello = Hello(firmware_id.hex(), *numbers)
        if not (8 <= hello.max_payload <= MAX_PAYLOAD and hello.ways >= 1 and hello.variant < len(VARIANTS)):
            raise self._nonsense("HELLO", len(payload))
        self._hello = hello
        return hello

    def handshake(self, manifest: Manifest) -> Hello:
        """`hello`, and DeviceError unless the firmware is the one of `manifest`."""
        hello = self.hello()
        if hello.firmware_id != manifest.firmware_id:
            raise DeviceError(
                f"runs firmware {hello.firmware_id}, but the project is {manifest.firmware_id}",
                self.where,
                "upload this project's firmware (`pio run -t upload`) or pass the other project",
            )
        said = (hello.sample_bytes, hello.ways, hello.steps, hello.tensors)
        expected = (manifest.sample_bytes, manifest.ways, manifest.steps, len(manifest.tensors))
        if said != expected:
            raise DeviceError(
                f"says (sample bytes, ways, steps, tensors) = {said}, the manifest {expected}",
                self.where,
                "generate and upload the project again",
            )
        return hello

    def reset(self, adaptation_id: int) -> None:
        """Back to the meta-trained weights, before step 1; the device keeps the id (64 bits, not 0) until the next."""
        self._expect(Command.RESET, struct.pack("<Q", adaptation_id), 0)

    def adapt(self, step: int, index: int, sample: bytes, target: Target) -> SampleResult:
        """Support sample number `index` (from 0) of step `step` (from 1), and its class or numbers."""
        words = self._send_both(sample, target)
        return self._adapted(Command.ADAPT, struct.pack("<4I", step, index, *words))

    def support_count(self) -> int:
        """Samples that the device keeps."""
        count: int = struct.unpack("<I", self._expect(Command.SUPPORT_COUNT, b"", 4))[0]
        return count

    def support_add(self, index: int, sample: bytes, target: Target) -> None:
        """Has the device keep support sample number `index` (from 0)."""
        self._expect(Command.SUPPORT_ADD, struct.pack("<3I", index, *self._send_both(sample, target)), 0)

    def support_adapt(self, step: int, index: int) -> SampleResult:
        """As `adapt`, with the sample that the device keeps."""
        return self._adapted(Command.SUPPORT_ADAPT, struct.pack("<2I", step, index))

    def end_step(self, step: int, samples: int) -> None:
        """Updates the weights; the device refuses another number of samples than it received."""
        self._expect(Command.END_STEP, struct.pack("<2I", step, samples), 0)

    def restart_step(self, step: int) -> None:
        """Drops what the device has accumulated in this step."""
        self._expect(Command.RESTART_STEP, struct.pack("<I", step), 0)

    def predict(self, sample: bytes) -> Float32Array:
        """Logits (ways,) with the weights as they are."""
        crc = self._send_sample(sample)
        return self._logits(self._request(Command.PREDICT, struct.pack("<I", crc)))

    def tensor_crc32(self, tensor: int) -> int:
        """CRC-32 of the canonical bytes of learned tensor number `tensor`, in the manifest's order."""
        crc: int = struct.unpack("<I", self._expect(Command.TENSOR_CRC, struct.pack("<I", tensor), 4))[0]
        return crc

    def tensor_bytes(self, tensor: int, count: int) -> bytes:
        """All `count` canonical bytes of a learned tensor."""
        data = bytearray()
        while len(data) < count:
            part = min(count - len(data), self._sizes.max_payload)
            data += self._expect(Command.READ_TENSOR, struct.pack("<3I", tensor, len(data), part), part)
        return bytes(data)

    @property
    def _sizes(self) -> Hello:
        if self._hello is None:
            raise RuntimeError("call hello() or handshake() first")
        return self._hello

    def _adapted(self, command: Command, payload: bytes) -> SampleResult:
        reply = self._request(command, payload)
        if len(reply) < 4:
            raise self._nonsense(command.name, len(reply))
        loss = np.frombuffer(reply[:4], "<f4").astype(np.float32)[0]
        return SampleResult(self._logits(reply[4:]), loss)

    def _send_both(self, sample: bytes, target: Target) -> tuple[int, int]:
        """Fills the device's buffers; returns the words that name what is taught, and the sample."""
        crc = self._send_sample(sample)
        word = target if isinstance(target, int) else self._send(Command.TARGET_CHUNK, target_bytes(target))
        return word, crc

    def _send_sample(self, sample: bytes) -> int:
        """Fills the device's sample buffer; returns the CRC-32 that names it."""
        if len(sample) != self._sizes.sample_bytes:
            raise ValueError(f"a sample of {len(sample)} bytes, the device takes {self._sizes.sample_bytes}")
        return self._send(Command.SAMPLE_CHUNK, sample)

    def _send(self, chunk: Command, data: bytes) -> int:
        """Fills one of the device's buffers, in chunks; returns the CRC-32 of all."""
        part = self._sizes.max_payload - 4
        for offset in range(0, len(data), part):
            self._expect(chunk, struct.pack("<I", offset) + data[offset : offset + part], 0)
        return zlib.crc32(data)

    def _logits(self, payload: bytes) -> Float32Array:
        """The logits at the front of a reply, and those that did not fit into it."""
        ways = self._sizes.ways
        while len(payload) < 4 * ways:
            rest = self._request(Command.READ_LOGITS, struct.pack("<I", len(payload) // 4))
            if not rest:
                break
            payload += rest
        if len(payload) != 4 * ways:
            raise self._nonsense("logits", len(payload))
        return np.frombuffer(payload, "<f4").astype(np.float32)

    def _expect(self, command: Command, payload: bytes, count: int) -> bytes:
        """A request whose reply must have `count` bytes of payload."""
        reply = self._request(command, payload)
        if len(reply) != count:
            raise self._nonsense(command.name, len(reply))
        return reply

    def _request(self, command: Command, payload: bytes) -> bytes:
        return self._client.request(command, payload)

    def _nonsense(self, what: str, count: int) -> DeviceError:
        return DeviceError(
            f"answers {what} with {count} bytes or values that make no sense",
            self.where,
            "generate and upload the project again with this pmeta",
        )
