"""The codes of what can be wrong with a machine: `doctor` and errors name them, the README lists them.

DSKD-<letter><number>: the number says what is looked at, the letter how it stands (I fine, W warning,
E error). 1xx are packages, 2xx the GPU, its libraries and engines, 3xx the machine and the folder. A
number never changes its meaning and is never used again.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """What is looked at.

    Attributes:
        number: 100 to 399.
        title: what is wrong where it is wrong, in a few words.
        cure: what to do about it; a message may say it closer to the case.
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

PYTHON = Code(100, "Python is too old", "use Python 3.10 or newer")
NUMPY = Code(101, "numpy is missing or too old", _BASE)
PYDANTIC = Code(102, "pydantic is missing or too old", _BASE)
PYYAML = Code(103, "pyyaml is missing or too old", _BASE)
TYPER = Code(104, "typer is missing or too old", _BASE)
RICH = Code(105, "rich is missing or too old", _BASE)
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
    124, "onnxruntime does not import", "install it again: `pip install --force-reinstall onnxruntime`"
)
ORT_WITHOUT_PROVIDER = Code(
    125,
    "this build of onnxruntime-gpu does not have the provider",
    "choose another one with `--provider`, or install a build of ONNX Runtime that has it",
)
ORT_CPU_ONLY = Code(
    126,
    "this onnxruntime is the CPU build, and a GPU provider is asked for",
    "`pip uninstall onnxruntime`, then `pip install onnxruntime-gpu`: the one for this CUDA",
)
NODE_ELSEWHERE = Code(
    127,
    "a node of the model runs on another provider than was asked for",
    "allow its operator with `--allow-cpu`, or choose another provider with `--provider`",
)
MODELOPT = Code(131, "nvidia-modelopt is missing or too old: bf16, fp8, tune and int8 for a GPU need it", _QUANT)
ONNXCONVERTER = Code(
    132, "onnxconverter-common is missing or too old: fp16 without nvidia-modelopt needs it", _QUANT
)

GPU = Code(
    201,
    "no NVIDIA GPU can be used here",
    "install the driver; in a container give it the GPU (`--gpus all`, on a Jetson `--runtime nvidia`)",
)
TENSORRT = Code(
    202,
    "TensorRT is not installed, or does not import",
    "`pip install 'dskd-compress[tensorrt]'`; on a Jetson `sudo apt install python3-libnvinfer`",
)
TENSORRT_OFF_PATH = Code(
    203,
    "the system's TensorRT is not on Python's path",
    "make the environment with `python3 -m venv --system-site-packages`, by the Python that it belongs to",
)
LIBNVINFER = Code(
    204,
    "libnvinfer, the library of TensorRT, cannot be loaded",
    "install TensorRT, or name its folder in `LD_LIBRARY_PATH`",
)
TENSORRT_MAJOR = Code(
    205,
    "TensorRT is of a major version that cannot be used",
    "install the version that is named: 10.3 to 10.16 or 11, and 10 for ONNX Runtime's wheels",
)
PARSER = Code(
    206,
    "libnvonnxparser, TensorRT's reader of ONNX, cannot be loaded",
    "install it beside libnvinfer; on a Jetson `sudo apt install libnvonnxparsers10`",
)
CUDA_LIBRARY = Code(
    207,
    "a CUDA library cannot be loaded",
    "install the CUDA and cuDNN of the versions that are named, or name their folder in `LD_LIBRARY_PATH`",
)
COMPUTE_CAPABILITY = Code(
    208,
    "there are no kernels for the compute capability of this GPU",
    "install a build for this GPU, or choose another provider with `--provider`",
)
GPU_MEMORY = Code(
    209,
    "the GPU has too little memory free",
    "close other programs on the GPU, or take a smaller batch (`--batch`) or precision",
)
JETPACK = Code(210, "the release of this Jetson's system is unknown or too old", "install JetPack 6.1 or newer")
CLOCKS = Code(
    211,
    "this Jetson does not run at the clocks that it could",
    "before timing: `sudo nvpmodel -m 0`, then `sudo jetson_clocks`",
)
ENGINE_VERSION = Code(221, "the engine was built by another version of TensorRT", _REBUILD)
ENGINE_GPU = Code(222, "the engine was built for another GPU", _REBUILD)
ENGINE_DISK = Code(
    223, "there is no room on the disk for the engine", "free some space, or choose another folder with `--out`"
)

DISK = Code(301, "the disk is nearly full", "free some space: a run needs 0.5 to 2 GiB")
MEMORY = Code(302, "there is little memory", "close other programs")
WRITABLE = Code(303, "the folder cannot be written to", "work in another folder, or give one with `--out`")

CODES: tuple[Code, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Code))
"""All of them, by number."""


def code_of(number: int) -> Code:
    """The code of a number.

    Raises:
        KeyError: there is none.
    """
    return {code.number: code for code in CODES}[number]


def code_of_library(name: str) -> Code:
    """Which code a library has that cannot be loaded, by its name."""
    if name.startswith(("libnvinfer", "libtensorrt")):
        return LIBNVINFER
    if name.startswith("libnvonnxparser"):
        return PARSER
    return CUDA_LIBRARY


def plain(cure: str) -> str:
    """A cure as the terminal shows it: a sentence, without Markdown."""
    text = cure.replace("`", "")
    return text if cure.startswith("`") else text[0].upper() + text[1:] + ("" if text.endswith("`") else ".")
