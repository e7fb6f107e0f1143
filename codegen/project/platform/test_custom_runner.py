"""`pio test`: speaks to the test program over the board's port, and turns its lines into test cases.

The program waits for a byte, then prints one line per case and a last one:

    PASS name
    FAIL name: what differs
    DONE

Bytes that come while it runs mean nothing to it.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import click
import serial
from platformio.exception import UserSideException
from platformio.public import TestCase, TestRunnerBase, TestStatus

PROJECT = Path(__file__).resolve().parent.parent
ANSWER_SECONDS = 600  # a line may stand for a whole adaptation
GREETING_SECONDS = 0.5  # bytes sent before the board's port is on are lost: ask again


class CustomTestRunner(TestRunnerBase):
    def stage_testing(self):
        if self.options.without_testing:
            return
        click.secho("Testing...", bold=True)
        with serial.serial_for_url(self.port(), timeout=GREETING_SECONDS) as link:
            self.on_testing_data_output(self.greet(link))
            deadline = time.monotonic() + ANSWER_SECONDS
            while not self.test_suite.is_finished():
                if time.monotonic() > deadline:
                    raise UserSideException(f"The test program has said nothing for {ANSWER_SECONDS} s")
                data = link.read(link.in_waiting or 1)
                if data:
                    deadline = time.monotonic() + ANSWER_SECONDS
                    self.on_testing_data_output(data)

    def port(self):
        """--test-port, or where `upload` has started the program."""
        if self.options.test_port:
            return self.options.test_port
        try:
            return json.loads(self.state().read_text(encoding="utf-8"))["port"]
        except (OSError, ValueError, KeyError) as error:
            raise UserSideException(f"{self.state()}: {error}; is the program running?") from error

    def greet(self, link):
        """Asks until the program answers; returns the first byte of the answer."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            link.write(b"\n")
            data = link.read(1)
            if data:
                return data
        raise UserSideException(f"The test program has not answered for {ANSWER_SECONDS} s")

    def on_testing_line_output(self, line):
        word, _, rest = line.strip().partition(" ")
        name, _, message = rest.partition(": ")
        if word in ("PASS", "FAIL"):
            status = TestStatus.PASSED if word == "PASS" else TestStatus.FAILED
            case = TestCase(name=name, status=status, message=message or None)
            self.test_suite.add_case(case)
            click.echo(case.humanize())
        elif word == "DONE":
            if not self.test_suite.cases:
                raise UserSideException("The test program has run no case")
            self.test_suite.on_finish()
        else:
            click.echo(line, nl=False)

    def teardown(self):
        if not self.options.without_uploading:
            device = Path(self.platform.get_dir()) / "builder" / "device.py"
            subprocess.run([sys.executable, str(device), "stop", str(self.state())], check=False, capture_output=True)

    def state(self):
        return PROJECT / ".pmeta" / f"{self.test_suite.env_name}.json"
