"""The C++ program, built as its README says and run against a stand-in for TensorRT and CUDA."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from bundle_support import make_spec
from deployment_support import (
    ODD_CLASSES,
    STUB,
    build_stub,
    hex_name,
    odd_bundle,
    plain_bundle,
    run,
    stub_engine,
)
from PIL import Image
from readme_blocks import blocks

from dskd_export.bundle import Bundle
from dskd_export.deployment import Plan, make_plan, write_deployment
from dskd_export.deployment.cpp import SOURCES, cpp_files, pillow_major, tolerance_of
from dskd_export.deployment.render import read_static
from dskd_export.deployment.write import readme_file
from dskd_export.runtime.preprocess import preprocess
from dskd_export.settings import BudgetSettings


@dataclass(frozen=True)
class Built:
    """A deployment whose program was built."""

    folder: Path
    bundle: Bundle
    plan: Plan

    def __call__(self, *arguments: str | Path, fault: str = "") -> subprocess.CompletedProcess[str]:
        done = run(
            ["cpp/build/dskd_runner", *map(str, arguments)],
            self.folder,
            **({"STUB_FAULT": fault} if fault else {}),
        )
        # The stand-in of CUDA ends a process with 99 where memory or a stream was not given back.
        assert done.returncode in (0, 2, 3, 4, 5), (done.returncode, done.stdout, done.stderr)
        return done


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stub") / "tensorrt"
    build_stub(root)
    return root


def build(bundle: Bundle, folder: Path, stub: Path) -> Built:
    plan = make_plan(bundle, provider="cpu")
    write_deployment(folder, plan, ["cpp"])
    (commands,) = (block.text for block in blocks(folder / "README.md", "sh") if "cmake" in block.text)
    configure, compile_ = (shlex.split(line) for line in commands.splitlines()[:2])
    flags = (
        f"-DTENSORRT_ROOT={stub}",
        f"-DCUDA_ROOT={stub}",
        "-DCMAKE_BUILD_TYPE=None",
    )  # unoptimised: it compiles faster
    for command in ([*configure, *flags, "-DCMAKE_CXX_FLAGS=-Werror"], compile_):
        done = run(command, folder)
        assert done.returncode == 0, done.stdout + done.stderr
    return Built(folder, bundle, plan)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, stub: Path) -> Built:
    folder = tmp_path_factory.mktemp("plain")
    return build(plain_bundle(folder / "bundle"), folder / "out", stub)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, stub: Path) -> Built:
    folder = tmp_path_factory.mktemp("odd")
    return build(odd_bundle(folder / "bundle"), folder / "out", stub)


Engine = Callable[..., Path]


@pytest.fixture
def engine(plain: Built) -> Engine:
    """An engine whose answers to the golden images are the reference's, changed by a function."""

    def make(change: Callable[[np.ndarray], np.ndarray] = lambda logits: logits, **options: object) -> Path:
        golden = plain.bundle.golden()
        path = plain.folder / "model.engine"
        path.write_bytes(stub_engine(plain.bundle.spec, golden.input, change(golden.logits.copy()), **options))  # type: ignore[arg-type]
        return path

    return make


# --- what is generated


def test_every_source_is_listed_and_none_is_long() -> None:
    folder = Path(__file__).parents[3] / "export/dskd_export/deployment/templates/cpp"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*SOURCES, "model_spec.h.j2"}
    assert all(read_static(f"cpp/{name}").count(b"\n") < 300 for name in SOURCES)


def test_nothing_that_a_generation_of_tensorrt_took_away() -> None:
    text = b"".join(read_static(f"cpp/{name}") for name in SOURCES).decode()
    removed = (
        "enqueueV2",
        "executeV2",
        "getBinding",
        "getNbBindings",
        "destroy()",
        "kEXPLICIT_BATCH",
        "kFP16",
        "kINT8",
    )
    assert not [name for name in removed if name in text]
    declared = (STUB / "NvInfer.h").read_text()
    assert not [
        name for name in removed[:5] if name in declared.replace("destroy()\n", "").partition("#pragma once")[2]
    ]


def test_golden_files_are_little_endian_arrays(plain: Built) -> None:
    golden = plain.bundle.golden()
    read = np.fromfile(plain.folder / "cpp/golden_input.bin", "<f4").reshape(golden.input.shape)
    assert np.array_equal(read, golden.input)
    assert np.array_equal(
        np.fromfile(plain.folder / "cpp/golden_logits.bin", "<f4").reshape(golden.logits.shape), golden.logits
    )


def test_tolerances_are_those_of_the_budget() -> None:
    for precision in ("fp16", "bf16", "int8", "fp8"):
        assert tolerance_of(precision) == (False, BudgetSettings().of(precision).mean_abs_relative)
    assert tolerance_of("fp32") == (True, 1e-3)
    assert tolerance_of("int4") == tolerance_of("int8")
    assert tolerance_of("tf32") == tolerance_of("bf16")


@pytest.mark.parametrize(
    ("versions", "major"),
    [({"pillow": "12.1.0"}, 12), ({"pillow": "13.0.0"}, 13), ({}, 13), ({"pillow": "x"}, 13)],
)
def test_the_pillow_of_the_export(tmp_path: Path, versions: dict[str, str], major: int) -> None:
    from bundle_support import bundle_arguments, make_provenance

    from dskd_export.bundle import open_bundle, write_bundle

    write_bundle(tmp_path / "b", **bundle_arguments() | {"provenance": make_provenance(versions=versions)})
    plan = make_plan(open_bundle(tmp_path / "b"))
    assert pillow_major(plan) == major
    assert f"    {major},  // pillow_major".encode() in cpp_files(plan)["model_spec.h"]  # type: ignore[operator]


# --- golden


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_golden_passes(plain: Built, engine: Engine, batch: int) -> None:
    rng = np.random.default_rng(0)
    path = engine(lambda logits: logits + rng.normal(scale=1e-5, size=logits.shape).astype(np.float32))
    done = plain("golden", "--engine", path, "--data", "cpp", "--batch", str(batch))
    assert (done.returncode, done.stderr) == (0, "")
    first, last = done.stdout.splitlines()
    assert re.fullmatch(
        rf"golden: 4 images, batch {batch}, largest difference / scale \S+, mean difference / scale \S+, "
        "same first class 4 of 4",
        first,
    )
    assert re.fullmatch(r"PASS: largest difference / scale \S+ <= 1\.00e-03", last)


def test_golden_numbers_are_those_of_compare(plain: Built, engine: Engine) -> None:
    from dskd_export.validation.parity import compare_outputs

    rng = np.random.default_rng(1)
    reference = plain.bundle.golden().logits
    candidate = (reference + rng.normal(scale=0.4, size=reference.shape)).astype(np.float32)
    done = plain("golden", "--engine", engine(lambda _: candidate), "--data", "cpp", "--tolerance", "10")
    parity = compare_outputs(reference, candidate, reference_name="a", candidate_name="b", batch=1)
    largest, mean, agree = re.findall(
        r"scale (\S+), mean difference / scale (\S+), same first class (\d) of 4", done.stdout
    )[0]
    assert float(largest) == pytest.approx(parity.max_abs_relative, rel=5e-3)
    assert float(mean) == pytest.approx(parity.mean_abs_relative, rel=5e-3)
    assert int(agree) == round(4 * parity.top1_agreement)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda logits: logits * np.float32(1.01),
            "error: The largest difference of logits is 1.00e-02 of their scale",
        ),
        (lambda logits: np.roll(logits, 1, axis=1), "error: The largest difference of logits is"),
        (lambda logits: logits * np.float32("nan"), "error: The engine gives NaN or Inf on the golden input."),
        (lambda logits: logits / np.float32(0), "error: The engine gives NaN or Inf on the golden input."),
    ],
)
def test_golden_fails(
    plain: Built, engine: Engine, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    with np.errstate(all="ignore"):
        path = engine(change)
    done = plain("golden", "--engine", path, "--data", "cpp")
    assert done.returncode == 5
    assert done.stderr.startswith(message)
    assert "\nhint: " in done.stderr
    assert "PASS" not in done.stdout


def test_an_answer_to_other_bytes_is_no_answer(plain: Built, engine: Engine) -> None:
    """The stand-in gives NaN for an image that it does not know: the input really reaches the engine."""
    path = engine()
    changed = bytearray((plain.folder / "cpp/golden_input.bin").read_bytes())
    changed[-1] ^= 1
    other = plain.folder / "other"
    other.mkdir(exist_ok=True)
    (other / "golden_input.bin").write_bytes(changed)
    (other / "golden_logits.bin").write_bytes((plain.folder / "cpp/golden_logits.bin").read_bytes())
    assert plain("golden", "--engine", path, "--data", "other").returncode == 5


def test_golden_of_probabilities(odd: Built) -> None:
    golden = odd.bundle.golden()
    path = odd.folder / "model.engine"
    path.write_bytes(stub_engine(odd.bundle.spec, golden.input, np.exp(golden.logits)))
    done = odd("golden", "--engine", path, "--data", "cpp", "--batch", "2")
    assert done.returncode == 0, done.stderr
    assert "same first class 4 of 4" in done.stdout
    # What underflows counts as 1e-38, and not as minus infinity.
    path.write_bytes(stub_engine(odd.bundle.spec, golden.input, np.zeros_like(golden.logits)))
    done = odd("golden", "--engine", path, "--data", "cpp")
    assert (done.returncode, done.stderr.split(" ")[1:3]) == (5, ["The", "largest"])


# --- classify and preprocess


def ranked(logits: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, str]]:
    shares = np.exp(logits.astype(np.float64) - logits.max())
    shares /= shares.sum()
    return [(f"{100 * shares[i]:.4f}", names[i]) for i in np.argsort(-logits, kind="stable")[:5]]


def shown(stdout: str) -> list[tuple[str, str]]:
    return [(share.strip(), name) for share, name in (line.split(" %  ", 1) for line in stdout.splitlines()[:-1])]


LATENCY = (
    r"TensorRT 10\.16\.3, batch (\d), (\d+) calls after (\d+): "
    r"p50 ([\d.]+) ms, p90 ([\d.]+) ms, p95 ([\d.]+) ms, p99 ([\d.]+) ms"
)


@pytest.mark.parametrize("given", ["image", "raw", "tensor"])
def test_classify(plain: Built, given: str) -> None:
    spec = plain.bundle.spec
    pixels = np.random.default_rng(2).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(plain.folder / "photo.ppm")
    (plain.folder / "photo.raw").write_bytes(pixels.tobytes())
    input_ = preprocess(image, spec)
    (plain.folder / "photo.bin").write_bytes(input_.tobytes())
    logits = np.random.default_rng(3).normal(size=len(spec.classes)).astype(np.float32)
    engine = plain.folder / "one.engine"
    engine.write_bytes(stub_engine(spec, input_[None], logits[None]))
    arguments = {
        "image": ["--image", "photo.ppm"],
        "raw": ["--raw", "photo.raw", "--width", "51", "--height", "37"],
        "tensor": ["--tensor", "photo.bin"],
    }[given]
    done = plain("classify", "--engine", engine, "--data", "cpp", "--iterations", "7", "--warmup", "2", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown(done.stdout) == ranked(logits, spec.classes)
    match = re.fullmatch(LATENCY, done.stdout.splitlines()[-1])
    assert match is not None, done.stdout
    assert match.groups()[:3] == ("1", "7", "2")
    times = [float(value) for value in match.groups()[3:]]
    assert times == sorted(times)


def test_classify_as_the_readme_says(odd: Built) -> None:
    """An engine that takes no less than two images; class names that could do harm."""
    (commands,) = (block.text for block in blocks(odd.folder / "README.md", "sh") if "cmake" in block.text)
    line = shlex.split(commands.splitlines()[3])
    assert line[0] == "cpp/build/dskd_runner"
    pixels = np.random.default_rng(2).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(odd.folder / "photo.ppm")
    probabilities = np.random.default_rng(5).dirichlet(np.ones(7)).astype(np.float32)
    input_ = preprocess(Image.fromarray(pixels), odd.bundle.spec)
    (odd.folder / "model.engine").write_bytes(
        stub_engine(odd.bundle.spec, input_[None], probabilities[None], batches=(2, 4))
    )
    done = odd(*line[1:], "--iterations", "1", "--warmup", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert ", batch 2, 1 calls after 0: " in done.stdout
    labels = tuple((odd.folder / "cpp/labels.txt").read_text(encoding="utf-8").split("\n")[:-1])
    assert len(labels) == len(ODD_CLASSES)
    assert shown(done.stdout) == ranked(np.log(probabilities), labels)


@pytest.mark.parametrize("which", ["plain", "odd"])
def test_preprocess(which: str, request: pytest.FixtureRequest) -> None:
    built: Built = request.getfixturevalue(which)
    image = Image.fromarray(np.random.default_rng(4).integers(0, 256, (50, 20, 3), dtype=np.uint8))
    image.save(built.folder / "tall.ppm")
    done = built("preprocess", "--image", "tall.ppm", "--out", "input.bin")
    assert (done.returncode, done.stderr) == (0, "")
    assert (built.folder / "input.bin").read_bytes() == preprocess(image, built.bundle.spec).tobytes()


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "A command is missing"),
        (["classfy"], 2, "There is no command 'classfy'."),
        (["golden"], 2, "golden needs --engine."),
        (["golden", "--engine"], 2, "--engine needs a value."),
        (["golden", "--engine", "e", "--engine", "e"], 2, "--engine is given twice."),
        (["golden", "--engine", "e", "--iterations", "3"], 2, "golden has no option '--iterations'."),
        (
            ["golden", "--engine", "GOOD", "--batch", "5", "--data", "cpp"],
            2,
            "The engine takes 1 to 4 images in a call, not 5.",
        ),
        (["golden", "--engine", "GOOD", "--batch", "0", "--data", "cpp"], 2, "--batch is '0'"),
        (
            ["golden", "--engine", "GOOD", "--batch", "1.5", "--data", "cpp"],
            2,
            "--batch must be a whole number.",
        ),
        (["golden", "--engine", "GOOD", "--tolerance", "x", "--data", "cpp"], 2, "--tolerance is 'x'"),
        (["golden", "--engine", "GOOD", "--tolerance", "nan", "--data", "cpp"], 2, "--tolerance is 'nan'"),
        (["golden", "--engine", "GOOD"], 3, "./golden_input.bin cannot be read"),
        (["golden", "--engine", "nowhere", "--data", "cpp"], 3, "nowhere cannot be read"),
        (["golden", "--engine", "cpp", "--data", "cpp"], 3, "cpp cannot be read"),
        (["golden", "--engine", "junk", "--data", "cpp"], 4, "TensorRT 10.16.3 cannot load junk"),
        (["classify", "--engine", "GOOD"], 3, "./labels.txt names 0 classes; the model has 7."),
        (["classify", "--engine", "GOOD", "--data", "cpp"], 2, "Give one image"),
        (["classify", "--engine", "GOOD", "--data", "cpp", "--image", "a", "--tensor", "b"], 2, "Give one image"),
        (
            ["classify", "--engine", "GOOD", "--data", "cpp", "--raw", "junk", "--width", "3"],
            2,
            "--raw, --width and --height go together.",
        ),
        (
            ["classify", "--engine", "GOOD", "--data", "cpp", "--raw", "junk", "--width", "3", "--height", "3"],
            3,
            "junk has 4 bytes; an RGB image of 3x3 has 27.",
        ),
        (
            ["classify", "--engine", "GOOD", "--data", "cpp", "--tensor", "junk"],
            3,
            "junk has 4 bytes; an input of this model has 576.",
        ),
        (["classify", "--engine", "GOOD", "--data", "cpp", "--image", "junk"], 3, "junk: not a binary PPM."),
        (["preprocess", "--image", "deep.ppm", "--out", "x"], 3, "deep.ppm: its largest value is 65535"),
        (["preprocess", "--image", "short.ppm", "--out", "x"], 3, "short.ppm: it is cut off."),
        (["preprocess", "--image", "huge.ppm", "--out", "x"], 3, "huge.ppm: 999999999x999999999 pixels"),
        (["preprocess", "--image", "headless.ppm", "--out", "x"], 3, "headless.ppm: a number is missing"),
        (["preprocess", "--image", "fine.ppm", "--out", "no/such/folder"], 4, "no/such/folder cannot be written."),
        (
            ["preprocess", "--image", "fine.ppm", "--out", "x", "--tensor", "y"],
            2,
            "preprocess has no option '--tensor'.",
        ),
    ],
)
def test_refused(plain: Built, engine: Engine, arguments: list[str], code: int, message: str) -> None:
    good = engine()
    for name, content in {
        "junk": b"junk",
        "deep.ppm": b"P6 1 1 65535\n123456",
        "short.ppm": b"P6 2 2 255\n12345",
        "huge.ppm": b"P6 999999999 999999999 255\n",
        "headless.ppm": b"P6 2 # 2 255\n",
        "fine.ppm": b"P6 # a comment\n2\t2\n255\n" + b"RGBRGBRGBRGB",
    }.items():
        (plain.folder / name).write_bytes(content)
    done = plain(*(str(good) if word == "GOOD" else word for word in arguments))
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("TensorRT: ")]
    assert lines[0].startswith(f"error: {message}"), done.stderr
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2


def test_help(plain: Built) -> None:
    done = plain("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: dskd_runner classify --engine FILE")
    assert "do not turn photos" in done.stdout


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("createInferRuntime", "TensorRT 10.16.3 does not start here."),
        ("createExecutionContext", "TensorRT has no memory for an execution context."),
        ("cudaMalloc", "GPU memory: CUDA says: out of memory."),
        ("setTensorAddress", "TensorRT does not take the addresses of its tensors."),
        ("enqueueV3", "TensorRT cannot run the engine; its log is above."),
        ("cudaStreamSynchronize", "The run: CUDA says: an illegal memory access was encountered."),
    ],
)
def test_a_machine_that_fails(plain: Built, engine: Engine, fault: str, message: str) -> None:
    done = plain("golden", "--engine", engine(), "--data", "cpp", fault=fault)
    assert done.returncode == 4, done.stderr
    assert f"error: {message}\nhint: " in done.stderr


def test_what_tensorrt_logs_is_shown(plain: Built) -> None:
    (plain.folder / "junk").write_bytes(b"junk")
    done = plain("golden", "--engine", "junk", "--data", "cpp")
    assert done.stderr.startswith("TensorRT: magic tag does not match\nerror: ")
    assert "not to be shown" not in done.stderr


INPUT, LOGITS = hex_name("input"), hex_name("logits")
SIDES = "3 6 8"
OUTPUT_LINE = f"tensor {LOGITS} out float 2 -1 7 0 0 0 0"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            [f"tensor {INPUT} in uint8 4 -1 {SIDES} 1 {SIDES} 4 {SIDES}", OUTPUT_LINE],
            "its input is of another type",
        ),
        (
            [f"tensor {INPUT} in float 4 -1 6 8 3 1 6 8 3 4 6 8 3", OUTPUT_LINE],
            "its input is of another type, or -1x6x8x3.",
        ),
        ([f"tensor {INPUT} in float 3 6 8 3 6 8 3 6 8 3", OUTPUT_LINE], "its input is of another type, or 6x8x3."),
        (
            [f"tensor {INPUT} in float 4 -1 {SIDES} 1 {SIDES} 4 {SIDES}", OUTPUT_LINE.replace("float", "half")],
            "its output is of another type",
        ),
        (
            [f"tensor {INPUT} in float 4 -1 {SIDES} 1 {SIDES} 4 {SIDES}", OUTPUT_LINE.replace(" 7 ", " 8 ")],
            "its output is of another type, or -1x8.",
        ),
        (
            [f"tensor {hex_name('images')} in float 4 -1 {SIDES} 1 {SIDES} 4 {SIDES}", OUTPUT_LINE],
            "it has a tensor images.",
        ),
        (
            [f"tensor {INPUT} in float 4 -1 {SIDES} 1 {SIDES} 4 {SIDES}"],
            "it has no input input, or no output logits.",
        ),
        (
            [f"tensor {INPUT} in float 4 -1 3 -1 -1 1 3 32 32 4 3 64 64", OUTPUT_LINE],
            "its optimization profiles take 1x3x32x32 to 4x3x64x64.",
        ),
    ],
)
def test_an_engine_of_another_model(plain: Built, engine: Engine, tensors: list[str], message: str) -> None:
    done = plain("golden", "--engine", engine(tensors=tensors), "--data", "cpp")
    assert done.returncode == 3, done.stderr
    assert f"is no engine of resnet18: {message}" in done.stderr


TWO_PROFILES = [
    f"tensor {INPUT} in float 4 -1 {SIDES} 1 {SIDES} 1 {SIDES}",
    f"profile {INPUT} 3 {SIDES} 4 {SIDES}",
    OUTPUT_LINE,
]


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_an_engine_of_two_profiles(plain: Built, engine: Engine, batch: int) -> None:
    path = engine(tensors=TWO_PROFILES)
    done = plain("golden", "--engine", path, "--batch", str(batch), "--data", "cpp")
    assert done.returncode == 0, done.stderr
    changes = plain(
        "golden",
        *("--engine", path, "--batch", str(batch), "--data", "cpp"),
        fault="setOptimizationProfileAsync",
    )
    assert changes.returncode == (0 if batch == 1 else 4), changes.stderr


def test_a_batch_between_two_profiles(plain: Built, engine: Engine) -> None:
    done = plain("golden", "--engine", engine(tensors=TWO_PROFILES), "--batch", "2", "--data", "cpp")
    assert done.returncode == 2
    assert "The engine takes 1, 3 to 4 images in a call, not 2." in done.stderr


def test_an_engine_of_one_batch(plain: Built, engine: Engine) -> None:
    path = engine(batches=(3, 3))
    assert plain("golden", "--engine", path, "--data", "cpp").returncode == 0
    assert "takes 3 images" in plain("golden", "--engine", path, "--data", "cpp", "--batch", "1").stderr


def test_the_stand_in_sees_what_is_not_given_back(stub: Path, tmp_path: Path) -> None:
    """Or the tests above could not fail."""
    source = "#include <cuda_runtime_api.h>\nint main() { void* p; cudaMalloc(&p, 8); return 0; }\n"
    (tmp_path / "leak.cpp").write_text(source)
    lib = stub / "lib"
    done = run(
        ["g++", "leak.cpp", f"-I{stub / 'include'}", f"-L{lib}", "-lcudart", f"-Wl,-rpath,{lib}", "-o", "leak"],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert run(["./leak"], tmp_path).returncode == 99


def test_cmake_says_what_is_missing(plain: Built, tmp_path: Path) -> None:
    done = run(["cmake", "-S", str(plain.folder / "cpp"), "-B", "build", f"-DTENSORRT_ROOT={tmp_path}"], tmp_path)
    assert done.returncode != 0
    assert "TENSORRT_INCLUDE" in done.stderr


def test_numbers_lose_nothing(plain: Built) -> None:
    spec = make_spec(mean=(1 / 3, 0.1, 1e-7), std=(0.1 + 0.2, 1.0, 5e-324), crop_pct=2 / 3)
    plan = replace(plain.plan, bundle=replace(plain.bundle, spec=spec))
    header = cpp_files(plan)["model_spec.h"].decode()  # type: ignore[union-attr]
    mean, std = (tuple(map(float, numbers.split(", "))) for numbers in re.findall(r"\{\{(.+)\}\}", header))
    assert (mean, std) == (spec.mean, spec.std)
    assert f"    {spec.crop_pct!r},\n" in header


@pytest.mark.parametrize("exif", ["ignore", "apply"])
def test_the_caller_learns_whether_to_turn_photos(plain: Built, exif: str, tmp_path: Path) -> None:
    """Neither a PPM nor a tensor carries EXIF, so that the program cannot do it."""
    plan = replace(plain.plan, bundle=replace(plain.bundle, spec=make_spec(exif=exif)))
    header = cpp_files(plan)["model_spec.h"].decode()  # type: ignore[union-attr]
    assert f"applies_exif = {'true' if exif == 'apply' else 'false'};" in header
    readme = readme_file(plan, ["cpp", "triton"]).decode()
    assert ("-auto-orient" in readme) is (exif == "apply")
    assert ("turns photos upright by their EXIF first" in readme) is (exif == "apply")
    assert f"| orientation in EXIF | {'applied' if exif == 'apply' else 'ignored'}: " in readme
