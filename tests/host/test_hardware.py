"""What a process finds out about itself."""

import subprocess
import sys

from qaq.host import hardware


def test_a_process_does_not_count_the_memory_of_the_one_that_started_it():
    held = b"x" * (300 << 20)
    code = "from qaq.host.hardware import peak_rss_mib; print(peak_rss_mib())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert held and hardware.peak_rss_mib() >= 300 > int(run.stdout) > 0
