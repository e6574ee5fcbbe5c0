"""An adapted model as a file that other programs load: nothing of this library is needed there."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdtheory.core.atomic import write_atomically
from mdtheory.meta.adapted import AdaptedModel
from mdtheory.models.norm import statistics_over_first
from mdtheory.run.answer import Alone

FORMATS = ("pt2", "onnx")
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""Largest difference of a probability between the original and what was read back."""


class Probabilities(nn.Module):
    """softmax(model(x) / temperature), without what only serves the library's users."""

    def __init__(self, model: nn.Module, temperature: float):
        super().__init__()
        self.model = _bare(model)
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities of the classes. shapes: (N, C, H, W) -> (N, n_classes)"""
        return (self.model(images) / self.temperature).softmax(-1)


class _Beside(nn.Module):
    """A network whose normalisation takes its statistics from the support, passed in front."""

    def __init__(self, network: nn.Module, support: Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("examples", support)
        self.examples: Tensor

    def forward(self, images: Tensor) -> Tensor:
        n = self.examples.shape[0]
        both = torch.cat([self.examples, images])
        with statistics_over_first(n, of=both.shape[0]):
            return self.network(both)[n:]


def _bare(model: nn.Module) -> nn.Module:
    """The same outputs by fewer ways, so that the size of a batch stays free."""
    if isinstance(model, Alone):
        return Alone(_bare(model.adapted), model.examples)
    if isinstance(model, AdaptedModel):
        given = model.support
        return _Beside(model.network, given) if isinstance(given, Tensor) else model.network
    return model


def export(
    model: nn.Module,
    images: Tensor,
    path: Path,
    *,
    temperature: float,
    classes: Sequence[str],
    one_at_a_time: bool = False,
) -> float:
    """Write ``path`` (``.pt2`` or ``.onnx``), read it back, and compare it with the model on
    ``images``, (N, C, H, W); returns the largest difference of a probability.

    The file takes float32 images (N, C, H, W), any N >= 2 (exactly 1 where ``one_at_a_time``), and
    gives probabilities (N, n_classes); it holds the class names as JSON under ``classes.json``
    (pt2) or in the metadata (ONNX). ``ValueError`` for a format whose packages are not installed, a
    model that cannot be exported, and a file that answers otherwise; what stood there is
    then intact.
    """
    kind = path.suffix.removeprefix(".")
    check_packages([kind])
    writers = {"pt2": _write_pt2, "onnx": _write_onnx}
    if kind not in writers:
        raise ValueError(f"an export must end in .pt2 or .onnx, got {path.name!r}; rename it")
    whole = Probabilities(copy.deepcopy(model), temperature).eval().cpu()
    device, images = images.device, images.detach().cpu()

    def original(x: Tensor) -> Tensor:
        return (model(x.to(device)) / temperature).softmax(-1).cpu()

    batch = images[:1] if one_at_a_time else _at_least_two(images)
    shapes = None if one_at_a_time else {"images": {0: torch.export.Dim("n", min=2, max=1 << 20)}}
    try:
        with torch.no_grad():
            made = torch.export.export(whole, (batch,), dynamic_shapes=shapes, strict=False)
            content, read_back = writers[kind](made, json.dumps(list(classes)))
            asked = [image[None] for image in images] if one_at_a_time else [batch]
            pairs = [(original(x), read_back(x)) for x in asked]
        worst = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    except (RuntimeError, TypeError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"the adapted model must be exportable to {kind}, got {type(error).__name__}: "
            f"{reason}; choose the other format"
        ) from error
    if not worst <= TOLERANCE:
        raise ValueError(
            f"what is read back from {path.name} must give the same probabilities, got a "
            f"difference of {worst:.2g}; nothing was kept, choose the other format"
        )
    write_atomically(path, content)
    return worst


def check_packages(kinds: Sequence[str]) -> None:
    """``ValueError`` where a package is missing that one of the formats needs: before any work."""
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if "onnx" in kinds and missing:
        raise ValueError(
            f"--export onnx must find the packages {', '.join(ONNX_PACKAGES)}, got none called "
            f"{missing[0]}; pip install 'mdtheory[onnx]', or export pt2"
        )


def _at_least_two(images: Tensor) -> Tensor:
    return images if len(images) > 1 else images.repeat(2, 1, 1, 1)


Written = tuple[bytes, Callable[[Tensor], Tensor]]
"""A file's content, made in memory (torch's own writer ends the process where a disk is full), and
what is read back from it. The function's shapes: (N, C, H, W) -> (N, n_classes)
"""


def _write_pt2(made: Any, classes: str) -> Written:
    content = io.BytesIO()
    torch.export.save(made, content, extra_files={"classes.json": classes})
    content.seek(0)
    return content.getvalue(), torch.export.load(content).module()


def _write_onnx(made: Any, classes: str) -> Written:
    runtime: Any = importlib.import_module("onnxruntime")
    onnx = torch.onnx.export(
        made, (), dynamo=True, verbose=False, output_names=["probabilities"], external_data=False
    )
    if onnx is None:
        raise RuntimeError("torch wrote no ONNX program")
    onnx.model.metadata_props["classes"] = classes
    content = onnx.model_proto.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.numpy()})[0])

    return content, run
