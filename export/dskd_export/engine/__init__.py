"""TensorRT engines: one interface, and one adapter for each generation of TensorRT's API.

    api.py           what building and running need of TensorRT, whatever its version
    generations.py   which TensorRT is installed here, and the adapter that fits it
    trt10.py         TensorRT 10.3 to 10.16: JetPack 6.1 to 7.1, servers
    trt11.py         TensorRT 11: JetPack 7.2.2 and later, servers
    rtx.py           TensorRT-RTX 1: GeForce and RTX GPUs; builds on a machine without a GPU
    common.py        building, as far as it is spelled the same in all three
    loaded.py        the same for a loaded engine and its executions
    log.py           TensorRT's messages, and what they mean
    opset.py         the operator set of an ONNX file
    device.py        the GPU as the driver describes it
    builder.py       bundle and precision -> model.<precision>.engine and model.<precision>.build.json
    refit.py         a stripped engine and a bundle's weights -> a whole engine
    process.py       a build in a process of its own, which a native crash may take down
    timing_cache.py  measured times of kernels, kept beside the engines of one device
    document.py      BuildDocument: all that is known of an engine
    found.py         which engines of a bundle are here, and may be run
    identity.py      may this engine be loaded here?
    inspect.py       in which number types do its layers run?

Networks are always strongly typed: the number types are those of the ONNX file. There is no flag for a
precision, and no calibration here.
"""

from __future__ import annotations

from dskd_export.engine.builder import BuildTarget, build_engine
from dskd_export.engine.document import BuildDocument, PrecisionTruth, document_path, engine_path, engines_folder
from dskd_export.engine.generations import installed, open_backend
from dskd_export.engine.identity import check_identity
from dskd_export.engine.inspect import precision_truth, refuse_other_precision
from dskd_export.engine.refit import refit_engine
from dskd_export.settings import BuildSettings

__all__ = [
    "BuildDocument",
    "BuildSettings",
    "BuildTarget",
    "PrecisionTruth",
    "build_engine",
    "check_identity",
    "document_path",
    "engine_path",
    "engines_folder",
    "installed",
    "open_backend",
    "precision_truth",
    "refit_engine",
    "refuse_other_precision",
]
