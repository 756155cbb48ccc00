"""As a library: the calling process is as it was, whatever was called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.helpers import write_images
from tests.support.ray_head import QUIET

PROGRAM = """
import json, logging, os, signal, sys, warnings
import cv2, numpy, random, threading, torch
import PIL.Image
import rich.style  # which draws a random number
import batchlight
from batchlight.host import process

folder, call = sys.argv[1:]
process.keep_freed_memory = lambda: sys.exit("malloc cannot be set back")
cv2.setNumThreads(3)
torch.set_num_threads(3)
torch.backends.cudnn.benchmark = True

def in_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]

def state():
    cudnn = torch.backends.cudnn
    return {
        "cv2 threads": cv2.getNumThreads(),
        "torch threads": torch.get_num_threads(),
        "torch threads of others": in_thread(torch.get_num_threads),
        "torch default type": str(torch.get_default_dtype()),
        "torch gradients": torch.is_grad_enabled(),
        "torch random": hash(bytes(torch.get_rng_state())),
        "cudnn": [cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32],
        "numpy errors": numpy.geterr(),
        "numpy random": str(numpy.random.get_state()),
        "random": hash(random.getstate()),
        **{f"environment: {name}": value for name, value in os.environ.items()},
        "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "log": [logging.root.level, len(logging.root.handlers)],
        "warnings": len(warnings.filters),
        "folder": os.getcwd(),
        "OpenCV's log": cv2.utils.logging.getLogLevel(),
        "Pillow's limit": PIL.Image.MAX_IMAGE_PIXELS,
        "logger of ray": logging.getLogger("ray").level,
    }

image = cv2.imread(folder + "/in/a/0000.jpg")
calls = {
    "enhance": lambda method: batchlight.enhance(image, method=method, device="cpu"),
    "run": lambda method: batchlight.run(
        batchlight.JobConfig(
            input=folder + "/in", output=folder + "/out", method=[method], device="cpu",
            workers=0, progress="off",
        )
    ),
    "run on Ray": lambda method: batchlight.run(
        batchlight.JobConfig(
            input=folder + "/in", output=folder + "/out", method=[method], device="cpu",
            workers=1, progress="off", address="local",
        )
    ),
}
name, _, method = call.rpartition(" ")
before = state()
calls[name](method)
after = state()
pairs = {key: (before.get(key), after.get(key)) for key in before | after}
print(json.dumps({key: pair for key, pair in pairs.items() if pair[0] != pair[1]}))
"""

OF_RAY = {
    *("environment: PYTHONBREAKPOINT", "environment: RAY_AUTH_MODE"),
    *("environment: RAY_CLIENT_MODE", "logger of ray", "random", "warnings"),
}
"""What Ray itself changes for good when it is imported and started."""


@pytest.mark.parametrize(
    "call",
    [
        *("enhance classical", "enhance absgn", "run classical", "run absgn"),
        pytest.param("run on Ray classical", marks=pytest.mark.nightly),
    ],
)
def test_a_call_leaves_the_process_as_it_was(tmp_path: Path, call: str) -> None:
    write_images(tmp_path / "in", 2)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path, call],
        capture_output=True,
        text=True,
        check=False,
        # As for users, whose own Ray asks for a token.
        env={name: value for name, value in os.environ.items() if name not in QUIET},
    )
    assert done.returncode == 0, done.stderr
    changed = json.loads(done.stdout.splitlines()[-1])
    assert {key: pair for key, pair in changed.items() if key not in OF_RAY} == {}
