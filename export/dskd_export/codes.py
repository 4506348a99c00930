"""Codes of problems of a machine: `doctor` and errors print them, docs/codes.md lists them.

DSKD-<letter><number>: the number names the check, the letter its outcome (I fine, W warning, E error).
1xx are packages, 2xx the GPU, its libraries and engines, 3xx the machine and the folder. A number never changes
its meaning and is never reused.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """A check.

    Attributes:
        number: 100 to 399.
        title: the problem, in a few words.
        cure: what to do; a message may be more specific.
    """

    number: int
    title: str
    cure: str

    def __str__(self) -> str:
        """As an error, for example `DSKD-E204`."""
        return f"DSKD-E{self.number}"


_BASE = "`pip install --upgrade dskd-compress`"
_TRAIN = "`pip install --upgrade 'dskd-compress[train]'`"
_ONNX = "`pip install --upgrade 'dskd-compress[onnx]'`; on a device `pip install onnxruntime`"
_QUANT = "`pip install --upgrade 'dskd-compress[quant]'`"
_REBUILD = "build it on this machine: `dskd-compress build BUNDLE`"

# Without pydantic, typer and rich `doctor` itself does not start: only their age can be reported.
PYTHON = Code(100, "Python is too old", "use Python 3.10 or newer")
NUMPY = Code(101, "numpy is missing or too old", _BASE)
PYDANTIC = Code(102, "pydantic is too old", _BASE)
PYYAML = Code(103, "pyyaml is missing or too old", _BASE)
TYPER = Code(104, "typer is too old", _BASE)
RICH = Code(105, "rich is too old", _BASE)
PILLOW = Code(106, "pillow is missing or too old", _BASE)
JINJA2 = Code(107, "jinja2 is missing or too old", _BASE)
TORCH = Code(111, "torch is missing or too old", _TRAIN)
TORCHVISION = Code(112, "torchvision is missing or too old", _TRAIN)
TIMM = Code(113, "timm is missing or too old", _TRAIN)
SAFETENSORS = Code(114, "safetensors is missing or too old", _TRAIN)
SCIKIT_LEARN = Code(115, "scikit-learn is missing or too old", _TRAIN)
TORCH_PAIR = Code(
    116, "torch and torchvision are of different releases", "`pip install --upgrade torch torchvision`"
)
ONNX = Code(121, "onnx is missing or too old", _ONNX)
ONNXSCRIPT = Code(122, "onnxscript is missing or too old", _ONNX)
ONNXRUNTIME = Code(123, "onnxruntime is missing or too old", _ONNX)
ORT_IMPORT = Code(
    124, "onnxruntime cannot be imported", "reinstall it: `pip install --force-reinstall onnxruntime`"
)
ORT_WITHOUT_PROVIDER = Code(
    125,
    "this build of onnxruntime-gpu does not have the provider",
    "choose another `--provider`, or install a build of ONNX Runtime that has it",
)
ORT_CPU_ONLY = Code(
    126,
    "onnxruntime is the CPU build, a GPU provider was requested",
    "`pip uninstall onnxruntime`, then `pip install onnxruntime-gpu`",
)
NODE_ELSEWHERE = Code(
    127,
    "a node of the model runs on another provider than requested",
    "allow its operator with `--allow-cpu`, or choose another `--provider`",
)
MODELOPT = Code(131, "nvidia-modelopt is missing or too old: bf16, fp8, tune and int8 for a GPU need it", _QUANT)
ONNXCONVERTER = Code(
    132, "onnxconverter-common is missing or too old: fp16 without nvidia-modelopt needs it", _QUANT
)

GPU = Code(
    201,
    "no usable NVIDIA GPU",
    "install the driver; in a container give it the GPU (`--gpus all`, on a Jetson `--runtime nvidia`)",
)
TENSORRT = Code(
    202,
    "TensorRT is not installed, or cannot be imported",
    "`pip install 'dskd-compress[tensorrt]'`; on a Jetson `sudo apt install python3-libnvinfer`",
)
TENSORRT_OFF_PATH = Code(
    203,
    "the system's TensorRT is not on Python's path",
    "create the environment with `python3 -m venv --system-site-packages`, using TensorRT's Python",
)
LIBNVINFER = Code(
    204,
    "libnvinfer, TensorRT's library, cannot be loaded",
    "install TensorRT, or add its folder to `LD_LIBRARY_PATH`",
)
TENSORRT_MAJOR = Code(
    205,
    "this version of TensorRT is not supported",
    "install TensorRT 10.3 to 10.16 or 11; ONNX Runtime's wheels need 10",
)
PARSER = Code(
    206,
    "libnvonnxparser, TensorRT's ONNX parser, cannot be loaded",
    "install it with TensorRT; on a Jetson `sudo apt install libnvonnxparsers10`",
)
CUDA_LIBRARY = Code(
    207,
    "a CUDA library cannot be loaded",
    "install the named versions of CUDA and cuDNN, or add their folder to `LD_LIBRARY_PATH`",
)
COMPUTE_CAPABILITY = Code(
    208,
    "there are no kernels for the compute capability of this GPU",
    "install a build for this GPU, or choose another `--provider`",
)
GPU_MEMORY = Code(
    209,
    "the GPU has too little free memory",
    "close other programs on the GPU, or use a smaller `--batch` or `--precision`",
)
JETPACK = Code(210, "the release of this Jetson's system is unknown or too old", "install JetPack 6.1 or newer")
CLOCKS = Code(
    211,
    "this Jetson does not run at its highest clocks",
    "before timing: `sudo nvpmodel -m 0`, then `sudo jetson_clocks`",
)
ENGINE_VERSION = Code(221, "the engine was built with another version of TensorRT", _REBUILD)
ENGINE_GPU = Code(222, "the engine was built for another GPU", _REBUILD)
ENGINE_DISK = Code(
    223, "the disk has no room for the engine", "free some space, or move the bundle to another disk"
)

DISK = Code(301, "the disk is nearly full", "free some space: a run needs 0.5 to 2 GiB")
MEMORY = Code(302, "little memory is available", "close other programs")
WRITABLE = Code(303, "the folder is not writable", "work in another folder, or choose one with `--out`")

CODES: tuple[Code, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Code))
"""Every code, by number."""


def code_of(number: int) -> Code:
    """Return the code of a number.

    Raises:
        KeyError: there is none.
    """
    return {code.number: code for code in CODES}[number]


def code_of_library(name: str) -> Code:
    """Return the code of a library that cannot be loaded."""
    if name.startswith(("libnvinfer", "libtensorrt")):
        return LIBNVINFER
    if name.startswith("libnvonnxparser"):
        return PARSER
    return CUDA_LIBRARY


def plain(cure: str) -> str:
    """Convert a cure to a sentence without Markdown."""
    text = cure.replace("`", "")
    return text if cure.startswith("`") else text[0].upper() + text[1:] + ("" if text.endswith("`") else ".")
