"""TensorRT engines: one interface, and one adapter for each generation of TensorRT's API. Import the modules.

    api.py           what building and running need of TensorRT, whatever its version
    versions.py      supported versions and capabilities
    generations.py   which TensorRT is installed, and its adapter
    adapter.py       what the adapters share; kernel timings, kept next to the engines of one device
    trt10.py         TensorRT 10.3 to 10.16: JetPack 6.1 to 7.1, servers
    trt11.py         TensorRT 11: JetPack 7.2.2 and later, servers
    rtx.py           TensorRT-RTX 1: GeForce and RTX GPUs; builds on a machine without a GPU
    common.py        building, as far as all generations spell it the same
    loaded.py        the same for a loaded engine and its execution contexts
    log.py           TensorRT's messages, and what they mean
    device.py        the GPU that engines are built for; too little disk or GPU memory
    builder.py       bundle and precision -> model.<precision>.engine and model.<precision>.build.json
    refit.py         a stripped engine and a bundle's weights -> a whole engine
    process.py       a build in a child process, which may crash
    document.py      BuildDocument: what is known of an engine
    identity.py      the engines of a bundle, and whether one can be loaded here
    inspect.py       the number types that its layers run in

Networks are always strongly typed: the number types are those of the ONNX file. There is no flag for a
precision, and no calibration here.
"""
