"""Precisions of an ONNX classifier, always as types or Q/DQ nodes in the graph and never as a runtime flag.

    fp16, bf16   half.py       tensors of half precision; what would overflow stays fp32
    int8, fp8    quantize.py   Q/DQ pairs, symmetric, weights by channel
                 search.py     which layers cost the accuracy, and have to stay in floating point
    modelopt.py                NVIDIA's ModelOpt in a separate process; without it ONNX Runtime's tools
    graph.py                   the few edits of a graph that all of these share

Needs `onnx` and `onnxruntime`; nothing here is imported on the device that runs the model.
"""
