"""minidense doctor: every mark, every way out, and no machine so broken that it crashes."""

import contextlib
import errno
import io
import re
import subprocess
import sys
import tarfile

import numpy as np
import platformdirs
import pytest
from machines import CUDARuntimeError

from minidense import cli, doctor, threads
from minidense.data import DATASETS
from minidense.doctor import ABSENT, OK, PROBLEM, examination
from minidense.precision import current_precision


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """An empty current folder, and no data set in sight."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIDENSE_DATA", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda app: str(tmp_path / "cache" / app))
    return tmp_path


def run(*argv, capsys):
    """Exit code, {about: (mark, text)} and the last line."""
    code = doctor.main(argv)
    out, err = capsys.readouterr()
    assert err == ""
    body, verdict = out.split("\n\n")
    lines = [re.fullmatch(r"(ok|problem|absent) +(.{14,}?) (\S.*)", line).groups() for line in body.splitlines()]
    return code, {about.strip(): (mark, text) for mark, about, text in lines}, verdict.strip()


def test_a_machine_with_a_gpu_is_described_and_tried(machine, capsys):
    machine("cupy-cuda13x", gpus=2)
    code, found, verdict = run("--device", "gpu", capsys=capsys)
    assert (code, verdict) == (0, "Ready to train on the CPU and on the GPU.")
    assert {about: mark for about, (mark, _) in found.items()} == {
        **dict.fromkeys(("minidense", "Python", "processor", "NumPy", "threads", "CPU computes", "data digits"), OK),
        **dict.fromkeys(("data cifar10", "data cifar100", "data svhn"), ABSENT),
        **dict.fromkeys(("CuPy", "NVRTC", "NVIDIA driver", "GPU 0", "GPU 1", "GPU computes"), OK),
    }
    assert found["CuPy"][1] == "14.2.0 (cupy-cuda13x), made for CUDA 13.2"
    assert found["NVRTC"][1].startswith("13.0,")
    assert found["NVIDIA driver"][1] == "knows CUDA up to 13.0"
    assert found["GPU 1"][1] == "NVIDIA T100, compute capability 9.0, 60.0 GB of 80.0 GB free"
    assert re.search(r"agree with the definition to \de-0[678] in float32 and \de-04 in tf32", found["GPU computes"][1])
    assert np.__version__ in found["NumPy"][1]
    assert found["threads"][1].startswith(f"{threads.thread_count()} on the CPU")


def test_without_a_gpu_nothing_is_wrong(machine_without_cupy, capsys):
    machine_without_cupy()
    code, found, verdict = run(capsys=capsys)
    assert (code, verdict) == (0, "Ready to train on the CPU; what a GPU would need is marked absent.")
    assert found["CuPy"][0] == ABSENT
    assert 'pip install "cupy-cuda12x[ctk]"' in found["CuPy"][1]
    assert not {"NVRTC", "NVIDIA driver", "GPU computes"} & set(found)


# Machines, and how the first line that is not ok is marked: when nobody asked for a GPU, and with --device gpu.
MACHINES = [
    ("no driver", {"driver": 0, "gpus": 0}, "NVIDIA driver", ABSENT, "there is no NVIDIA driver here"),
    ("old driver", {"driver": 12040, "gpus": CUDARuntimeError("old")}, "NVIDIA driver", PROBLEM, "cupy-cuda12x[ctk]"),
    ("no gpu", {"gpus": CUDARuntimeError("cudaErrorNoDevice: none")}, "GPU", ABSENT, "no GPU is visible"),
    ("cuda broken", {"gpus": CUDARuntimeError("cudaErrorUnknown")}, "GPU", PROBLEM, "CUDA cannot start"),
    ("properties", {"memory": OSError("a\nb")}, "GPU", PROBLEM, "OSError: a b"),
    ("no nvrtc", {"nvrtc": RuntimeError('Failure finding "libnvrtc.so.13"')}, "NVRTC", ABSENT, "cupy-cuda13x[ctk]"),
    ("odd nvrtc", {"nvrtc": RuntimeError("odd")}, "NVRTC", PROBLEM, "RuntimeError: odd"),
]


@pytest.mark.parametrize(("name", "options", "about", "mark", "words"), MACHINES, ids=[m[0] for m in MACHINES])
def test_what_is_missing_is_a_problem_only_if_it_was_asked_for(name, options, about, mark, words, machine, capsys):
    machine("cupy-cuda13x", **options)
    for argv, expected in (((), mark), (("--device", "cpu"), mark), (("--device", "gpu"), PROBLEM)):
        code, found, verdict = run(*argv, capsys=capsys)
        assert found[about][0] == expected
        assert words in found[about][1]
        assert "device 'gpu':" not in found[about][1]  # the line says already what it is about
        assert code == (expected == PROBLEM)
        if expected == PROBLEM:
            assert verdict == "1 problem: see above."
        if about != "NVRTC":
            assert "GPU computes" not in found


def test_a_cupy_that_cannot_be_imported_is_a_problem(machine_with_broken_cupy, capsys):
    machine_with_broken_cupy("cupy-cuda13x", source='raise ImportError("libcudart.so.13")')
    code, found, _ = run(capsys=capsys)
    assert code == 1
    assert found["CuPy"][0] == PROBLEM
    assert "ImportError: libcudart.so.13" in found["CuPy"][1]


def test_two_installations_are_a_problem_even_where_they_work(machine):
    machine("cupy-cuda12x", "cupy-cuda13x")
    found = [(finding.mark, finding.about) for finding in doctor.gpu(ABSENT)]
    assert found[:2] == [(PROBLEM, "CuPy"), (OK, "CuPy")]
    assert found[-1] == (OK, "GPU computes")


def test_two_installations_that_fail_are_told_once(machine_with_broken_cupy):
    machine_with_broken_cupy("cupy-cuda12x", "cupy-cuda13x", source='raise ImportError("libcudart.so.13")')
    (finding,) = doctor.gpu(ABSENT)
    assert (finding.mark, "installed 2 times" in finding.text) == (PROBLEM, True)


def test_the_warning_of_cupy_is_not_repeated(machine_with_broken_cupy, recwarn):
    source = "import warnings; warnings.warn('two packages', stacklevel=1); ndarray = object; __version__ = '1'"
    machine_with_broken_cupy("cupy-cuda13x", source=source)
    assert [finding.text for finding in doctor.gpu(ABSENT)] == ["AttributeError: module 'cupy' has no attribute 'cuda'"]
    assert not recwarn


# -- the self-test ----------------------------------------------------------------------------------------------------


def test_tensor_cores_are_tried_as_well(machine, monkeypatch, capsys):
    machine("cupy-cuda13x")
    right = doctor.convolution

    def wrong(*args, **options):
        arrays = right(*args, **options)
        return [a * 1.01 for a in arrays] if current_precision() == "tf32" and options["device"] == "gpu" else arrays

    monkeypatch.setattr(doctor, "convolution", wrong)
    code, found, _ = run(capsys=capsys)
    assert (code, found["GPU computes"][0]) == (1, PROBLEM)
    assert "wrong in tf32: off by 1e-02" in found["GPU computes"][1]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("part", [0, 1, 2], ids=["y", "dx", "dweight"])
@pytest.mark.parametrize("damage", ["one value", "not a number"])
def test_a_device_that_computes_wrongly_is_a_problem(device, part, damage, machine, monkeypatch, capsys):
    machine("cupy-cuda13x")
    right = doctor.convolution

    def wrong(*args, **options):
        arrays = right(*args, **options)
        if options["device"] == device and options["dtype"] == np.float32:
            arrays[part][1, 2, 1, 1] += 0.1 if damage == "one value" else np.nan
        return arrays

    monkeypatch.setattr(doctor, "convolution", wrong)
    code, found, _ = run(capsys=capsys)
    mark, text = found[f"{device.upper()} computes"]
    assert (code, mark) == (1, PROBLEM)
    assert re.search(r"wrong in float32: off by (\de-0[123]|nan) of the largest value. Do not train here; \w+", text)


def test_the_self_test_computes_on_the_device_that_it_is_about(machine, monkeypatch):
    machine("cupy-cuda13x")
    asked = []
    right = doctor.convolution
    monkeypatch.setattr(
        doctor,
        "convolution",
        lambda *args, **options: (asked.append(tuple(options.values())), right(*args, **options))[1],
    )
    for device in ("cpu", "gpu"):
        list(doctor.self_test(device))
    assert asked == [(np.float64, "cpu"), (np.float32, "cpu"), (np.float64, "cpu"), *[(np.float32, "gpu")] * 2]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError('Failure finding "libcublas.so.13"'), 'It comes with: pip install "cupy-cuda13x[ctk]"'),
        (MemoryError("Out of memory allocating 2,100 bytes (allocated so far: 0 bytes)."), "asked for 2.1 kB more with 20.0 GB of 80.0 GB"),
        (ZeroDivisionError("so\nbroken"), "ZeroDivisionError: so broken"),
    ],
)  # fmt: skip
def test_a_gpu_that_cannot_compute_says_why(error, words, machine, monkeypatch, capsys):
    machine("cupy-cuda13x")
    right = doctor.convolution

    def fail(*args, **options):
        if options["device"] == "gpu":
            raise error
        return right(*args, **options)

    monkeypatch.setattr(doctor, "convolution", fail)
    code, found, _ = run(capsys=capsys)
    assert (code, found["GPU computes"][0]) == (1, PROBLEM)
    assert words in found["GPU computes"][1]


# -- the machine and the data sets ------------------------------------------------------------------------------------


def test_a_wrong_number_of_threads_is_a_problem(machine_without_cupy, monkeypatch, capsys):
    machine_without_cupy()
    monkeypatch.setattr(threads._Settings, "count", None)
    monkeypatch.setenv("MINIDENSE_THREADS", "many")
    code, found, _ = run(capsys=capsys)
    assert (code, found["threads"][0]) == (1, PROBLEM)
    assert "unset it for all cores" in found["threads"][1]


@pytest.mark.parametrize(
    "probe", ["cpu_name", "blas_name", "thread_count", "find", "load", "library", "distributions", "gpus"]
)
def test_no_probe_can_make_it_crash(probe, machine, monkeypatch, capsys):
    def fail(*args, **options):
        raise KeyError("what\never")

    machine("cupy-cuda13x")
    monkeypatch.setattr(doctor, probe, fail)
    code, found, _ = run("--device", "gpu", capsys=capsys)
    assert code == 1
    assert any(mark == PROBLEM and "KeyError: 'what\\never'" in text for mark, text in found.values())
    if probe == "cpu_name":
        assert found["Python"][0] == OK  # what was found before stays


def test_a_missing_data_set_is_a_problem_only_if_it_was_asked_for(machine_without_cupy, capsys):
    machine_without_cupy()
    code, found, _ = run(capsys=capsys)
    assert (code, found["data cifar10"][0]) == (0, ABSENT)
    assert found["data digits"] == (OK, "in the package: 1,437 + 360 images")
    code, found, _ = run("--data", "cifar10", capsys=capsys)
    assert (code, found["data cifar10"][0]) == (1, PROBLEM)
    for word in ("was not found in", "curl", "MINIDENSE_DATA"):
        assert word in found["data cifar10"][1]


def test_a_data_set_is_found_without_being_read(machine_without_cupy, nowhere, monkeypatch, capsys):
    machine_without_cupy()
    (nowhere / "datasets").mkdir()
    with tarfile.open(nowhere / "datasets" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(__file__, "cifar-10-batches-bin/data_batch_1.bin")  # not that, but this shows only when it is read
    monkeypatch.setitem(DATASETS, "cifar10", lambda *args: pytest.fail("it was read"))
    code, found, _ = run("--data", "cifar10", capsys=capsys)
    assert code == 0
    assert re.fullmatch(r"found: datasets.cifar-10-binary\.tar\.gz", found["data cifar10"][1])


def test_a_web_page_in_the_place_of_an_archive_is_a_problem(machine_without_cupy, nowhere, capsys):
    machine_without_cupy()
    (nowhere / "datasets").mkdir()
    (nowhere / "datasets" / "cifar-10-binary.tar.gz").write_text("<html>log in to the network first</html>" * 20)
    code, found, _ = run(capsys=capsys)
    assert (code, found["data cifar10"][0]) == (1, PROBLEM)
    assert "get it again" in found["data cifar10"][1]


def test_every_data_set_is_looked_for_or_comes_with_the_package():
    """A new one needs its places in doctor.PLACES, or all of it would be read."""
    assert set(DATASETS) == {"digits", *doctor.PLACES}


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--device tpu", ["--device", "'tpu'", "gpu"]),
        ("--device", ["--device", "expected one argument"]),
        ("--devise gpu", ["--devise", "did you mean --device"]),
        ("--data cifar", ["--data", "'cifar'", "did you mean cifar10"]),
        ("gpu", ["gpu"]),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(line, words, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "examination", lambda **options: pytest.fail("it began"))
    try:
        code = doctor.main(line.split())
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("minidense doctor: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_help_shows_the_defaults_and_fits_the_width(capsys):
    with pytest.raises(SystemExit) as end:
        doctor.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "(default: cpu)" in text
    assert "(default: digits)" in text
    assert max(map(len, text.splitlines())) <= 120


def test_it_is_a_command_of_minidense(monkeypatch, capsys):
    assert cli.COMMANDS["doctor"][0] is doctor.main
    assert cli.main(["doctor", "--device", "tpu"]) == 2
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "  doctor " in capsys.readouterr().out


def test_an_interrupt_ends_it_quietly(monkeypatch, capsys):
    def stop(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "examination", stop)
    assert doctor.main([]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_full_disk_behind_the_output_ends_it_in_one_line(monkeypatch, capsys):
    def full(line):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(doctor, "show", full)
    assert doctor.main([]) == 4
    assert capsys.readouterr().err == "minidense doctor: [Errno 28] No space left on device\n"


def test_a_terminal_that_cannot_spell_gets_its_lines_all_the_same(machine_without_cupy):
    machine_without_cupy()
    raw = io.BytesIO()
    terminal = io.TextIOWrapper(raw, encoding="ascii")
    with contextlib.redirect_stdout(terminal):
        doctor.main([])
    assert rb"3\xd73 convolution" in raw.getvalue()


def test_findings_come_one_by_one(machine_without_cupy):
    """Whoever waits for the GPU has the rest before their eyes."""
    machine_without_cupy()
    assert next(examination()).about == "minidense"


def test_the_real_machine_whatever_it_is_is_described(nowhere):
    done = subprocess.run(
        [sys.executable, "-m", "minidense", "doctor"],
        cwd=nowhere,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert re.search(r"^ok +CPU computes ", done.stdout, re.MULTILINE)


def test_a_reader_that_goes_away_causes_no_traceback(nowhere):
    code = (
        "import os, sys; from minidense.doctor import main; read, write = os.pipe(); os.close(read); "
        "os.dup2(write, 1); sys.exit(main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=nowhere, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (4, "")
