"""A generator in files of other programs: torch.export's .pt2 and ONNX, each checked against the net it was made from."""

import importlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gan_core.errors import CheckpointError, ConfigurationError
from gan_core.noise import draw_noise
from gan_core.portable import PortableGenerator
from gan_core.randomness import stream
from gan_core.threads import one_thread

SUFFIXES = (".pt2", ".onnx")
CHECKED = 64  # real z, drawn as the model's samples are, on which the file is compared with the net
TOLERANCE = 1e-5  # of a pixel in [0, 1], relative above 1: float32 sums in another order
ONNX_OPSET = 18


class Images(nn.Module):
    """G as images, from z alone where there is no condition."""

    def __init__(self, model: PortableGenerator) -> None:
        super().__init__()
        self.generator, self.shape = model.generator, model.image_shape

    def forward(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        """G(z | c), (count, *image shape)."""
        condition = noise[:, :0] if condition is None else condition
        return self.generator(noise, condition).unflatten(-1, self.shape)


def export(model: PortableGenerator, path: Path) -> float:
    """Write the generator to a file, .pt2 or .onnx by its name, and return by how much its pixels differ at most.

    Inputs are `noise` (count, noise size) and, of a conditional model, `condition` (count, its width), float32 and
    of any count; the output is `images` (count, *image shape), of pixels as the model was trained on. The file is
    read back, and its images of 64 real z are compared with G's before it takes its name.

    Raises:
        ConfigurationError: If the name ends otherwise, or what writes or reads ONNX is not installed.
        CheckpointError: If the file's images are not G's within the tolerance, or it cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(
            "unknown kind of export", "--output", str(path), f"a name ending in {' or '.join(SUFFIXES)}"
        )
    if path.suffix == ".onnx":
        check_onnx()
    write, read = (_write_onnx, _read_onnx) if path.suffix == ".onnx" else (_write_pt2, _read_pt2)
    net, inputs = Images(model).eval().cpu(), _real_inputs(model)
    try:
        with one_thread(), torch.no_grad(), tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
            part = Path(folder) / path.name
            write(net, {name: value[:2] for name, value in inputs.items()}, part)
            expected, got = net(*inputs.values()).numpy(), read(part)(inputs)
            difference = float(np.max(np.abs(got - expected) / np.maximum(1, np.abs(expected))))
            if got.shape != expected.shape or not difference <= TOLERANCE:
                raise CheckpointError(
                    "export differs", path, f"pixels that differ by {difference:.1e}", f"at most {TOLERANCE:.0e}"
                )
            os.replace(part, path)
    except OSError as error:
        raise CheckpointError(
            "cannot be written", path, str(error), "a folder that can be written, with room"
        ) from error
    return difference


def check_onnx() -> None:
    """Refuse ONNX where what writes or reads it is not installed.

    Raises:
        ConfigurationError: If so.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigurationError(
                "not installed",
                "ONNX",
                f"no package {package}",
                "the extra exchange: pip install '.[exchange]'; or a .pt2 file",
            ) from error


def _real_inputs(model: PortableGenerator) -> dict[str, Tensor]:
    inputs = {"noise": draw_noise(stream(0, "samples", 0), CHECKED, model.noise)}
    if model.conditions.size:
        inputs["condition"] = model.prior_condition(CHECKED, 0)
    return inputs


def _program(net: Images, inputs: dict[str, Tensor]) -> torch.export.ExportedProgram:
    count = torch.export.Dim("count", min=1)
    return torch.export.export(
        net, tuple(inputs.values()), dynamic_shapes=tuple({0: count} for _ in inputs), strict=False
    )


def _write_pt2(net: Images, inputs: dict[str, Tensor], path: Path) -> None:
    torch.export.save(_program(net, inputs), path)


def _read_pt2(path: Path) -> Callable[[dict[str, Tensor]], np.ndarray]:
    module = torch.export.load(path).module()  # unpickles, which is safe of what was written just now
    return lambda inputs: module(*inputs.values()).numpy()


def _write_onnx(net: Images, inputs: dict[str, Tensor], path: Path) -> None:
    torch.onnx.export(
        _program(net, inputs), f=path, input_names=list(inputs), output_names=["images"], opset_version=ONNX_OPSET,
        external_data=False, verbose=False,
    )  # fmt: skip


def _read_onnx(path: Path) -> Callable[[dict[str, Tensor]], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
