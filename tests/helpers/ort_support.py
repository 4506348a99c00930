"""An ONNX Runtime for GPUs on a machine without one: real library files, answers of our own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from library_support import write_library

TRT, CUDA, CPU = (f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU"))


class FakeSession(SimpleNamespace):
    """A session that tells where its nodes run: name, operator, provider."""

    def __init__(self, given: Sequence[str], nodes: Sequence[Any]) -> None:
        super().__init__(
            get_providers=lambda: list(given) or [CPU],
            get_outputs=lambda: [SimpleNamespace(name="logits")],
            disable_fallback=lambda: None,
        )
        self._nodes = nodes

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(ep_name=provider, get_nodes=lambda n=name, o=op: [SimpleNamespace(name=n, op_type=o)])
            for name, op, provider in self._nodes
        ]


class FakeOptions(SimpleNamespace):
    """Session options that keep what is added."""

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries = {key: value}


class FakeOnnxRuntime(SimpleNamespace):
    """The module.

    Args:
        folder: where it is installed; the libraries of its providers are written there.
        given: the providers that its sessions end up with; none: the CPU's, as the real one falls back.
        nodes: of its sessions; or an error that opening one ends with.
        built: the providers that it says it has.
        needed: what the libraries of its providers need.
        content: of these libraries, for example kernels.
    """

    def __init__(
        self,
        folder: Path,
        given: Sequence[str] = (),
        nodes: Sequence[Any] = (),
        *,
        built: Sequence[str] = (TRT, CUDA, CPU),
        needed: Sequence[str] = ("libc.so.6",),
        content: bytes = b"",
    ) -> None:
        self.made: list[dict[str, Any]] = []
        for name in ("cuda", "tensorrt"):
            write_library(folder / "capi" / f"libonnxruntime_providers_{name}.so", needed, content=content)
        made = self.made

        class Session(FakeSession):
            def __init__(self, model: object, **how: Any) -> None:
                if nodes and isinstance(nodes[0], Exception):
                    raise nodes[0]
                made.append(how)
                # The CPU's kernels are in the module itself: no fault of another provider's library keeps it away.
                on_cpu = [name for name, _ in how["providers"]] == [CPU]
                super().__init__(given or ([CPU] if on_cpu else []), nodes)

        super().__init__(
            made=made,
            __version__="1.31.1",
            __file__=str(folder / "__init__.py"),
            SessionOptions=FakeOptions,
            GraphOptimizationLevel=SimpleNamespace(ORT_ENABLE_ALL="all", ORT_DISABLE_ALL="none"),
            get_available_providers=lambda: list(built),
            InferenceSession=Session,
            preload_dlls=lambda: print("looking for libraries"),
        )
