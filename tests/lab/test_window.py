"""Gemma comes back: on real systemd, sshd and Docker, whatever happens to whom.

Every test ends with the same question (`all_is_well`): does Gemma answer a completion in time, is the
lease gone, is nothing of the benchmark left, and does the run's verdict say what happened?
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab import (  # tests/lab/lab.py
    GEMMA, ROOT, Play, as_op, completion, inside, lab, record_time, write,
)  # fmt: skip
