"""The benchmark with a voice that is no model: counts, retries, figures, and what is kept."""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from loopback import RATE, FakeVoice, speechlike

from understudy.audio import pcm
from understudy.bench import memory, smoke, standby
from understudy.common.progress import Progress
from understudy.documents import validate

SILENCE = np.zeros(2 * RATE, np.float32)
NOTHING = np.zeros(0, np.float32)
TUNING = {"cfg_weight": 0.3, "exaggeration": 0.3, "temperature": 0.6}
UTTERANCES = [
    {
        "id": f"u{number:02}",
        "text": f"This is sentence number {number}.",
        "text_sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        "seed": 1000 + number,
    }
    for number in range(1, 11)
]


class Loaded(FakeVoice):
    """A fake voice with what the benchmark asks a loaded model."""

    has_default = False

    def __init__(self, script: dict[int, object] | None = None):
        super().__init__(script)
        self.info |= {
            "import_s": 1.5,
            "model_s": 0.5,
            "dtype": "float32",
            "token_cap": 1000,
            "busy": [{"what": "model_load", "start": 1.0, "end": 3.0}],
        }


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("torch")
    module.version = SimpleNamespace(cuda=None)
    module.Tensor = type("Tensor", (), {})  # scipy asks any torch for it
    monkeypatch.setitem(sys.modules, "torch", module)


@pytest.fixture
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


class Bench:
    """One benchmark in a directory of its own."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch):
        self.directory = directory / "20261122-031500Z"
        self.weights = directory / "weights"
        self.weights.mkdir()
        self.reference = directory / "samantha.wav"
        pcm.write_wav(self.reference, speechlike(4.0))
        self.path = self.directory / "bench-titan.json"
        self.loads: list[tuple[Any, ...]] = []
        self.voice: Any = Loaded()
        self.directory.mkdir()
        self.progress = self.directory / "progress.jsonl"

        def load(*arguments: Any, **options: Any) -> Any:
            self.loads.append((*arguments, options))
            if isinstance(self.voice, Exception):
                raise self.voice
            return self.voice

        monkeypatch.setattr(standby.Voice, "load", load)

    def run(self, script: dict[int, object] | None = None, **changes: Any) -> dict[str, Any]:
        if script is not None:
            self.voice = Loaded(script)
        config = {
            "run_id": self.directory.name,
            "host": "titan",
            "weights_dir": str(self.weights),
            "voice": str(self.reference),
            "device": "cpu",
            "stft_patch": False,
            "token_cap": None,
            "threads": 2,
            "tuning": TUNING,
            "utterances": UTTERANCES,
            "warmup": 2,
            "out_dir": str(self.directory),
            "wav_dir": "titan_native",
            "lock_sha256": "a" * 64,
            "git_commit": "abc",
            **changes,
        }
        found = standby.run(config, self.path, Progress(self.progress))
        assert json.loads(self.path.read_text()) == json.loads(json.dumps(found))
        return found

    @property
    def lines(self) -> list[str]:
        return [json.loads(line)["text"] for line in self.progress.read_text().splitlines()]


@pytest.fixture
def a_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: None, no_nvml: None) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.fixture
def valid() -> Any:
    validator = validate.load_schemas()["bench"]

    def check(document: dict[str, Any]) -> None:
        assert [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)] == []

    return check


def test_warm_ups_then_every_utterance_once(a_bench: Bench, valid: Any) -> None:
    (a_bench.weights / "manifest.json").write_text(json.dumps({"conds.pt": "b" * 64}))
    found = a_bench.run(warmup=10)
    valid(found)
    assert (found["status"], found["error"]) == ("ok", None)
    said = [(text, seed) for text, seed, _ in a_bench.voice.said]
    assert said == 2 * [(row["text"], row["seed"]) for row in UTTERANCES]
    assert [row["id"] for row in found["warmup"]] == [row["id"] for row in UTTERANCES]
    assert {row["wav"] for row in found["warmup"]} == {None}
    assert found["aggregate"]["ok_count"] == 10
    assert found["load"]["import_s"] == 1.5
    assert found["token_cap"] == 1000
    assert found["environment"]["weights"] == {"conds.pt": "b" * 64}
    reference = hashlib.sha256(a_bench.reference.read_bytes()).hexdigest()
    assert found["environment"]["voice_sha256"] == reference
    assert a_bench.voice.references == [("samantha.wav", 0.3)]
    [(weights, device, options)] = a_bench.loads
    assert (weights, device) == (a_bench.weights, "cpu")
    assert options == {
        "stft_patch": False,
        "token_cap": None,
        "threads": 2,
        "trust_prepared": False,
        "fast_load": True,
    }


def test_a_bench_without_fast_load(a_bench: Bench) -> None:
    a_bench.run(warmup=0, fast_load=False)
    assert a_bench.loads[0][2]["fast_load"] is False


def test_figures_of_an_utterance_are_of_its_wav(a_bench: Bench) -> None:
    for row in a_bench.run()["utterances"]:
        samples, rate = pcm.read_wav(a_bench.directory / row["wav"])
        assert row["audio_s"] == pytest.approx(len(samples) / rate)
        assert row["audio_s"] == pytest.approx(1.5)
        assert row["rtf"] == pytest.approx(row["wall_s"] / row["audio_s"])
        data = (a_bench.directory / row["wav"]).read_bytes()
        assert row["wav_sha256"] == hashlib.sha256(data).hexdigest()


def test_more_warm_ups_than_utterances_start_again(a_bench: Bench) -> None:
    found = a_bench.run(warmup=3, utterances=UTTERANCES[:2])
    assert [row["id"] for row in found["warmup"]] == ["u01", "u02", "u01"]
    assert a_bench.run({}, warmup=0)["warmup"] == []


def test_progress_is_told_as_it_is_shown(a_bench: Bench) -> None:
    a_bench.run(warmup=1, utterances=UTTERANCES[:3])
    assert a_bench.lines[0] == "titan  load  loading the model"
    assert a_bench.lines[-4:] == [
        "titan  warm-up 1/1  RTF 0.07",
        "titan  timed 1/3  RTF 0.07",
        "titan  timed 2/3  RTF 0.07",
        "titan  timed 3/3  RTF 0.07",
    ]


def test_unusable_audio_is_tried_again_with_another_seed(a_bench: Bench, valid: Any) -> None:
    found = a_bench.run({2: SILENCE, 3: "cap"}, warmup=0)
    valid(found)
    row = found["utterances"][2]
    assert (row["ok"], row["error"], row["seed"]) == (True, None, 201_003)
    assert [retry["seed"] for retry in row["retries"]] == [1003, 101_003]
    assert row["retries"][0]["reason"].startswith("silent")
    assert row["retries"][1]["reason"] == "cut off at the token cap after 50 tokens"
    assert row["hit_cap"] is False
    assert len(a_bench.voice.said) == 12
    assert found["status"] == "ok"
    assert "titan  timed 3/10  RTF 0.07  (2 retries)" in a_bench.lines


def test_twice_again_is_the_limit(a_bench: Bench, valid: Any) -> None:
    found = a_bench.run({2: SILENCE, 3: SILENCE, 4: SILENCE}, warmup=0)
    valid(found)
    row = found["utterances"][2]
    assert (row["ok"], len(row["retries"]), len(a_bench.voice.said)) == (False, 2, 12)
    assert row["error"].startswith("silent")
    assert (a_bench.directory / row["wav"]).is_file()
    assert found["status"] == "failed"
    assert found["error"]["kind"] == "bench"
    assert found["error"]["host"] == "titan"
    assert found["error"]["trying"] == "speaking 10 utterances"
    assert found["error"]["seen"].startswith("9 of 10 are usable; u03: silent")
    assert f"--config {a_bench.directory}/config.json" in found["error"]["next"]


def test_the_token_cap_is_noticed(a_bench: Bench) -> None:
    found = a_bench.run({0: "cap", 1: "cap", 2: "cap"}, warmup=0)
    row = found["utterances"][0]
    assert (row["ok"], row["hit_cap"], row["tokens"]) == (False, True, 50)
    assert row["error"] == "cut off at the token cap after 50 tokens"


def test_an_exception_ends_its_utterance_and_not_the_others(a_bench: Bench, valid: Any) -> None:
    crash = RuntimeError("CUDA error: out of memory")
    found = a_bench.run({3: crash, 4: crash, 5: crash}, warmup=0)
    valid(found)
    row = found["utterances"][3]
    assert row["error"] == "RuntimeError: CUDA error: out of memory"
    assert {row[key] for key in ("wall_s", "rtf", "tokens", "wav", "audio")} == {None}
    assert found["aggregate"]["ok_count"] == 9
    assert [row["ok"] for row in found["utterances"]].count(True) == 9
    assert len(a_bench.voice.said) == 12


def test_nothing_is_left_of_the_attempt_before(a_bench: Bench, valid: Any) -> None:
    """A row never shows one attempt's seed beside another's figures and sound."""
    crash = RuntimeError("gone")
    found = a_bench.run(
        {0: "cap", 1: SILENCE, 2: crash, 3: SILENCE, 4: NOTHING, 5: NOTHING}, warmup=0
    )
    valid(found)
    first, second = found["utterances"][:2]
    assert (first["seed"], first["error"]) == (201_001, "RuntimeError: gone")
    measured = ("wall_s", "audio_s", "rtf", "tokens", "hit_cap", "wav", "wav_sha256", "audio")
    assert {first[key] for key in measured} == {None}
    assert (second["audio_s"], second["rtf"], second["wav"]) == (0, None, None)
    assert second["error"].startswith("empty")
    wavs = sorted(path.name for path in (a_bench.directory / "titan_native").iterdir())
    assert wavs == [f"u{number:02}.wav" for number in range(3, 11)]


def test_the_aggregate_is_of_the_usable_only(a_bench: Bench) -> None:
    long = speechlike(2.4)
    script = {0: SILENCE, 1: SILENCE, 2: SILENCE, 3: long}
    found = a_bench.run(script, warmup=0, utterances=UTTERANCES[:3])
    aggregate = found["aggregate"]
    assert aggregate["ok_count"] == aggregate["rtf"]["n"] == 2
    assert (aggregate["audio_s"]["min"], aggregate["audio_s"]["max"]) == (1.5, 2.4)
    assert aggregate["rtf"]["mean"] == pytest.approx((0.1 / 1.5 + 0.1 / 2.4) / 2)


def test_a_warm_up_is_not_repeated_and_not_kept(a_bench: Bench) -> None:
    found = a_bench.run({0: SILENCE, 1: RuntimeError("cold")}, warmup=2)
    assert [row["ok"] for row in found["warmup"]] == [False, False]
    assert [row["retries"] for row in found["warmup"]] == [[], []]
    assert found["warmup"][1]["error"] == "RuntimeError: cold"
    assert len(a_bench.voice.said) == 12
    assert found["status"] == "ok"
    assert "titan  warm-up 2/2  RuntimeError: cold" in a_bench.lines


def test_the_file_grows_and_is_valid_all_the_time(a_bench: Bench, valid: Any) -> None:
    seen = []

    class Watched(Loaded):
        def speak(self, *arguments: Any, **options: Any) -> Any:
            document = json.loads(a_bench.path.read_text())
            valid(document)
            assert document["status"] == "running"
            seen.append(len(document["utterances"]))
            return super().speak(*arguments, **options)

    a_bench.voice = Watched()
    a_bench.run(warmup=1)
    assert seen == [0, *range(10)]


def test_a_model_that_cannot_be_loaded(a_bench: Bench, valid: Any) -> None:
    a_bench.voice = RuntimeError("default_program(1):" + "x\n" * 9000 + "nvrtc: error")
    found = a_bench.run()
    valid(found)
    assert found["status"] == "failed"
    assert found["error"]["trying"] == "loading the model"
    assert found["error"]["seen"] == "RuntimeError: … nvrtc: error"
    assert (found["load"], found["utterances"], found["finished_at"] is None) == (None, [], False)


def test_a_reference_that_is_gone(a_bench: Bench, valid: Any) -> None:
    def use_reference(path: Path, exaggeration: float) -> None:
        path.read_bytes()

    a_bench.reference.unlink()
    a_bench.voice.use_reference = use_reference
    found = a_bench.run()
    valid(found)
    assert found["error"]["trying"] == "preparing the reference voice"
    assert "samantha.wav" in found["error"]["seen"]


def test_a_disk_that_takes_no_wav_ends_the_run_with_what_is_known(
    a_bench: Bench, valid: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = pcm.write_wav

    def full(path: Path, *arguments: Any) -> None:
        if path.name == "u04.wav":
            raise OSError(28, "No space left on device", str(path))
        write(path, *arguments)

    monkeypatch.setattr(pcm, "write_wav", full)
    found = a_bench.run()
    valid(found)
    assert (found["status"], len(found["utterances"])) == ("failed", 3)
    assert found["error"]["trying"] == "speaking u04"
    assert "No space left" in found["error"]["seen"]


def test_what_fails_after_the_last_utterance_is_not_laid_at_its_door(
    a_bench: Bench, valid: Any
) -> None:
    a_bench.reference.unlink()  # the fake needs none; its hash is taken at the end
    found = a_bench.run()
    valid(found)
    assert (found["status"], found["aggregate"]["ok_count"]) == ("failed", 10)
    assert found["error"]["trying"].startswith("noting what it was measured on")


def test_the_samples_travel_as_one_file(a_bench: Bench) -> None:
    a_bench.run()
    with tarfile.open(a_bench.directory / "samples-titan.tar") as tar:
        names = tar.getnames()
        first = tar.extractfile("titan_native/u01.wav")
        assert first is not None
        packed = first.read()
    assert names == [f"titan_native/u{number:02}.wav" for number in range(1, 11)]
    assert packed == (a_bench.directory / "titan_native/u01.wav").read_bytes()


def test_a_run_directory_made_of_it_is_valid(a_bench: Bench) -> None:
    a_bench.run()
    problems = validate.validate_run(a_bench.directory)
    assert [problem for problem in problems if problem.startswith("bench-")] == []


def test_memory_without_nvml_is_null_with_a_reason(a_bench: Bench) -> None:
    found = a_bench.run(warmup=0, utterances=UTTERANCES[:1])
    figures = found["memory"]
    assert figures["process_driver_bytes"] is None
    assert figures["process_driver_note"] == "nvidia-ml-py is not installed"
    assert figures["torch_peak_allocated_bytes"] is None
    assert figures["torch_note"] == "torch keeps no such count for cpu"
    assert 0 < figures["mem_available_low_bytes"] <= figures["mem_available_start_bytes"]
    assert figures["process_peak_rss_bytes"] > 10 * 1024**2
    assert found["environment"]["nvml_note"] == "nvidia-ml-py is not installed"
    assert found["environment"]["clocks"] is None


# The driver's figures


class NvmlError(Exception):
    pass


class Nvml(ModuleType):
    """A binding of NVML in which `refused` names what the driver does not support."""

    NVMLError = NvmlError
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
    nvmlClocksEventReasonSwPowerCap = 4
    nvmlClocksEventReasonHwThermalSlowdown = 64

    def __init__(self, processes: list[list[tuple[int, int | None]]], refused: str = ""):
        super().__init__("pynvml")
        self.processes, self.refused = processes, refused
        self.mask = 1

    def answer(self, name: str, value: Any) -> Any:
        if name in self.refused.split():
            raise NvmlError("Not Supported")
        return value

    def nvmlInit(self) -> None:
        self.answer("init", None)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.processes)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return int(self.answer("handle", index))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        rows = self.answer("processes", self.processes[handle])
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in rows]

    def nvmlSystemGetDriverVersion(self) -> str:
        return str(self.answer("driver", "580.95.05"))

    def nvmlDeviceGetClockInfo(self, handle: int, clock: int) -> int:
        return int(self.answer("clocks", 1000 * clock))

    def nvmlDeviceGetMaxClockInfo(self, handle: int, clock: int) -> int:
        return int(self.answer("max_clocks", 2400))

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:
        return int(self.answer("reasons", self.mask))


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(*processes: list[tuple[int, int | None]], refused: str = "") -> Nvml:
        module = Nvml(list(processes), refused)
        monkeypatch.setitem(sys.modules, "pynvml", module)
        return module

    return install


ME, OTHER = 100, 200


def test_only_this_process_is_counted_on_every_gpu(nvml: Any) -> None:
    nvml([(OTHER, 7000), (ME, 3000)], [(ME, 500), (OTHER, None)])
    assert memory.process_driver_bytes(ME) == (3500, "")
    assert memory.process_driver_bytes(OTHER)[0] is None


@pytest.mark.parametrize(
    ("processes", "refused", "note"),
    [
        ([(ME, None)], "", "NVML lists the process without its memory (N/A)"),
        ([(OTHER, 1)], "", "NVML does not list this process"),
        ([], "", "NVML does not list this process"),
        ([(ME, 1)], "processes", "NVML: Not Supported"),
        ([(ME, 1)], "init", "NVML: Not Supported"),
    ],
)
def test_what_the_driver_does_not_tell_is_null(
    nvml: Any, processes: list[Any], refused: str, note: str
) -> None:
    nvml(processes, refused=refused)
    found, seen = memory.process_driver_bytes(ME)
    assert found is None
    assert seen.startswith(note)


def test_the_peak_of_the_driver_and_the_low_of_the_host(
    nvml: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.os, "getpid", lambda: ME)
    module = nvml([(ME, 3000)])
    free = iter([100, 90, 40, 80])
    monkeypatch.setattr(memory, "available_bytes", lambda: next(free))
    low = memory.LowWater(interval_s=60)
    for module.processes in ([[(ME, 3000)]], [[(ME, 5000)]]):
        low._look()
    with low:
        module.processes = [[(ME, None)]]
    assert (low.start_bytes, low.low_bytes, low.driver_bytes) == (100, 40, 5000)


def test_a_short_block_is_looked_at_too(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.os, "getpid", lambda: ME)
    nvml([(ME, 3000)])
    with memory.LowWater(interval_s=60) as low:
        pass
    assert low.driver_bytes == 3000
    with pytest.raises(ZeroDivisionError), memory.LowWater(interval_s=0.001):
        raise ZeroDivisionError


def test_driver_clocks_and_throttling(nvml: Any) -> None:
    module = nvml([])
    assert memory.gpu_environment() == {
        "driver": "580.95.05",
        "throttling": [],
        "nvml_note": "",
        "clocks": {"sm_mhz": 1000, "sm_max_mhz": 2400, "memory_mhz": 2000},
    }
    module.mask = 1 | 4 | 64
    assert memory.gpu_environment()["throttling"] == ["power cap", "thermal (hardware)"]


def test_throttling_in_the_middle_is_not_forgotten_at_the_end(nvml: Any) -> None:
    module = nvml([])
    low = memory.LowWater(interval_s=60)
    for module.mask in (0, 64, 0):
        low._look()
    assert low.gpu()["throttling"] == ["thermal (hardware)"]
    assert low.gpu()["clocks"]["sm_mhz"] == 1000
    assert memory.gpu_environment()["throttling"] == []


def test_a_gpu_that_tells_only_some_of_it(nvml: Any) -> None:
    nvml([], refused="max_clocks reasons")
    found = memory.gpu_environment()
    assert found["clocks"] == {"sm_mhz": 1000, "sm_max_mhz": None, "memory_mhz": 2000}
    assert found["throttling"] is None
    assert found["nvml_note"] == (
        "nvmlDeviceGetMaxClockInfo: Not Supported; "
        "nvmlDeviceGetCurrentClocksEventReasons: Not Supported"
    )
    nvml([], refused="handle")
    found = memory.gpu_environment()
    assert (found["driver"], found["clocks"]) == ("580.95.05", None)


# One utterance before anything is measured


@pytest.fixture
def speak_once(a_bench: Bench) -> Any:
    def run(voice: Any = None) -> dict[str, Any]:
        if voice is not None:
            a_bench.voice = voice
        return smoke.run(
            {
                "weights_dir": str(a_bench.weights),
                "device": "cpu",
                "stft_patch": True,
                "token_cap": 200,
                "threads": 1,
                "fast_load": False,
                "tuning": TUNING,
                "voice": str(a_bench.reference),
                "out": str(a_bench.directory / "smoke.wav"),
            }
        )

    return run


def test_a_smoke_utterance_with_the_reference(speak_once: Any, a_bench: Bench) -> None:
    found = speak_once()
    assert (found["import_ok"], found["error"]) == (True, None)
    assert (found["smoke"]["ok"], found["smoke"]["voice"]) == (True, "reference")
    assert found["smoke"]["audio"]["problems"] == []
    assert pcm.read_wav(a_bench.directory / "smoke.wav")[1] == RATE
    assert [row["what"] for row in found["busy"]] == ["model_load", "synthesis"]
    assert a_bench.loads[0][2] == {
        "stft_patch": True,
        "token_cap": 200,
        "threads": 1,
        "trust_prepared": False,
        "fast_load": False,
    }


def test_the_default_voice_speaks_and_the_reference_is_prepared_all_the_same(
    speak_once: Any,
) -> None:
    voice = Loaded()
    voice.has_default = True
    assert speak_once(voice)["smoke"]["voice"] == "default"
    assert voice.references == [("samantha.wav", 0.3)]


def test_a_smoke_utterance_without_a_sound(speak_once: Any) -> None:
    found = speak_once(Loaded({0: SILENCE}))
    assert found["smoke"]["ok"] is False
    assert found["error"].startswith("silent")
    assert found["smoke"]["audio"]["problems"]


@pytest.mark.parametrize("where", ["load", "speak"])
def test_what_upstream_raises_is_the_finding(speak_once: Any, where: str) -> None:
    error = TypeError("'NoneType' object is not callable")
    found = speak_once(error if where == "load" else Loaded({0: error}))
    assert found["error"] == "TypeError: 'NoneType' object is not callable"
    assert found["import_ok"] is (where == "speak")
    assert found["smoke"]["ok"] is False


@pytest.mark.parametrize(("built", "ok"), [(object, True), (None, False)])
def test_a_watermarker_that_imports_and_is_none_is_not_ok(
    speak_once: Any, monkeypatch: pytest.MonkeyPatch, built: Any, ok: bool
) -> None:
    module: Any = ModuleType("perth")
    module.PerthImplicitWatermarker = built
    monkeypatch.setitem(sys.modules, "perth", module)
    found = speak_once()["watermarker"]
    assert (found["required"], found["name"], found["ok"]) == (True, "resemble-perth", ok)
