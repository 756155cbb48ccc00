"""Train ABSGN for a given time on the pictures of a pack, all of which live on the GPU.

    python -m benchmarks.gpu.train PACK OUT --seconds 480 [--start FILE]

OUT gets, well before the end and again whenever the network is scored,

    absgn.safetensors    the weights in half precision, 16.4 MB
    log.jsonl            a line each time: seconds, steps, loss, scores
    looked_at.webp       held-out pictures: dark, enhanced, truth

Scores are PSNR and SSIM of 8-bit results, and PSNR once the mean is the truth's: of the pairs held
out, of their native dark pictures (compared when shrunk as the truth is), and of ``check``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
import torch
import typer
from torch import Tensor

from batchlight.absgn.exposure import Exposure
from batchlight.absgn.network import ABSGN, MULTIPLE
from batchlight.absgn.synthetic import Darkening
from batchlight.absgn.timed_training import Budget, Phase, Pictures, resized, train_for
from batchlight.absgn.training import ssim
from batchlight.absgn.weights import EXPOSURE, dump_weights, load_tensors
from benchmarks.gpu.pack import CONTENTS

Rgb = npt.NDArray[np.uint8]
Images = dict[str, Rgb]
"""By name: (height, width, 3)."""

REHEARSAL = (
    Phase(0.6, side=96, batch=6),
    Phase(0.9, side=160, batch=2),
    Phase(1.0, side=256, batch=2, native=0.2),
)
"""For a CPU."""
LOOKED_AT = 8
"""Pictures of each kind."""
LOOKED_AT_WIDTH = 360


@dataclass(frozen=True)
class Pack:
    """What ``pack`` packed: uint8 RGB, (N, 3, H, W)."""

    pictures: Pictures
    checks: dict[str, tuple[Tensor, Tensor]]
    """By name: dark pictures, and their truth, perhaps shrunk."""


app = typer.Typer(add_completion=False)


@app.command()
def main(
    pack: Path,
    out: Path,
    seconds: Annotated[float, typer.Option(help="From the first step to the last.")] = 480,
    channels: Annotated[int, typer.Option(help="Width of the network.")] = 32,
    start: Annotated[Path | None, typer.Option(help="Weights to go on from.")] = None,
    rate: Annotated[float, typer.Option(help="The learning rate at its peak.")] = 5e-4,
    side: Annotated[int | None, typer.Option(help="Of all samples, instead of phases.")] = None,
    batch: Annotated[int, typer.Option(help="Samples of that side in a step.")] = 8,
    synthetic: Annotated[float, typer.Option(help="Share made of well-lit pictures.")] = 0.4,
    bright: Annotated[float, typer.Option(help="Share of these that are bright.")] = 0.15,
    average: Annotated[float, typer.Option(help="Decay of the moving average.")] = 0.999,
    score_every: Annotated[float, typer.Option(help="Seconds.")] = 60,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
) -> None:
    """Train, score, and write the weights."""
    began = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    loaded = _load(pack, device)
    out.mkdir(parents=True, exist_ok=True)
    budget = Budget(
        seconds,
        channels,
        learning_rate=rate,
        average=average,
        synthetic=synthetic,
        darkening=replace(Darkening(), bright=bright),
        seed=seed,
    )
    if side is not None:
        budget = replace(budget, phases=(Phase(1.0, side, batch),))
    elif device.type == "cpu":
        budget = replace(budget, phases=REHEARSAL)
    tensors = load_tensors(start.read_bytes())[0] if start else None
    about = {
        "model": f"absgn of {channels} channels",
        "recipe": json.dumps(asdict(budget), sort_keys=True),
        EXPOSURE: budget.exposure.dump(),
        "started from": start.name if start else "random weights",
    }
    typer.echo(f"{time.monotonic() - began:.1f} s to load; {_described(loaded)}; {device}")
    facts: dict[str, float] = {}
    lines: list[str] = []
    for network in train_for(budget, loaded.pictures, facts.update, tensors, score_every):
        scores = {
            name: _score(network, budget.exposure, *check) for name, check in loaded.checks.items()
        }
        data = dump_weights(network.state_dict(), {**about, "scores": json.dumps(scores)})
        (out / "absgn.safetensors").write_bytes(data)
        figures = {name: round(value, 5) for name, value in facts.items()}
        lines.append(json.dumps(figures | scores))
        (out / "log.jsonl").write_text("\n".join(lines) + "\n")
        typer.echo(lines[-1])
    cv2.imwrite(str(out / "looked_at.webp"), _montage(network, budget.exposure, loaded.checks))
    typer.echo(f"{time.monotonic() - began:.1f} s in all")


@torch.inference_mode()
def _results(
    network: ABSGN, exposure: Exposure, low: Tensor, high: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of (1, 3, H, W) in 0..1: 8-bit results, shrunk as their truth is, and the truth."""
    for one, truth in zip(low, high, strict=True):
        dark, truth = one[None].float() / 255, truth[None].float() / 255
        x = exposure.of(dark).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.float16, enabled=x.device.type == "cuda"):
            restored = network(x)
        restored = (restored.float() * 255).round() / 255
        yield _shrunk(restored, (truth.shape[2], truth.shape[3])), truth


def _score(network: ABSGN, exposure: Exposure, low: Tensor, high: Tensor) -> dict[str, float]:
    rows = []
    for restored, truth in _results(network, exposure, low, high):
        aligned = (restored * (truth.mean() / restored.mean().clamp(min=1e-3))).clamp(0, 1)
        errors = torch.stack([((x - truth) ** 2).mean() for x in (restored, aligned)])
        rows.append(torch.cat([-10 * errors.log10(), ssim(restored, truth)[None]]))
    psnr, aligned_psnr, likeness = torch.stack(rows).mean(0).tolist()
    return {"psnr": round(psnr, 3), "ssim": round(likeness, 4), "aligned": round(aligned_psnr, 3)}


def _montage(network: ABSGN, exposure: Exposure, checks: dict[str, tuple[Tensor, Tensor]]) -> Rgb:
    columns = []
    for low, high in checks.values():
        step = max(1, len(low) // LOOKED_AT)
        low, high = low[::step][:LOOKED_AT], high[::step][:LOOKED_AT]
        results = _results(network, exposure, low, high)
        for dark, (restored, truth) in zip(low, results, strict=True):
            shown = [dark[None].float() / 255, restored, truth]
            size = (LOOKED_AT_WIDTH * 2 // 3, LOOKED_AT_WIDTH)
            column = torch.cat([_shrunk(x, size)[0] for x in shown], 1)
            columns.append((column.clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy())
    columns += [np.zeros_like(columns[0])] * (-len(columns) % LOOKED_AT)
    rows = [np.hstack(columns[at : at + LOOKED_AT]) for at in range(0, len(columns), LOOKED_AT)]
    return np.ascontiguousarray(np.vstack(rows)[..., ::-1])


def _shrunk(images: Tensor, size: tuple[int, int]) -> Tensor:
    """In 256 levels."""
    return (resized(images, size) * 255).round() / 255


def _refuse_incomplete(pack: Path) -> None:
    """Exit if files of a pack were lost on the way: minutes are dear, and nobody looks."""
    for folder, count in json.loads((pack / CONTENTS).read_text()).items():
        there = sum(1 for _ in (pack / folder).iterdir()) if (pack / folder).is_dir() else 0
        if there != count:
            raise SystemExit(f"{pack / folder} holds {there} of {count} files; copy the pack again")


def _load(pack: Path, device: torch.device) -> Pack:
    _refuse_incomplete(pack)
    low, high = _read(pack / "pairs/low"), _read(pack / "pairs/high")
    native = _read(pack / "native/low")
    square = next(iter(high.values())).shape[:2]
    for name, image in native.items():
        if name not in low:  # the same, shrunk
            floats = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
            low[name] = (_shrunk(floats, square)[0] * 255).byte().permute(1, 2, 0).numpy()
    held_out = set((pack / "held_out.txt").read_text().split())
    names, natives = sorted(low.keys() - held_out), sorted(native.keys() - held_out)

    def put(images: Images, names: Sequence[str]) -> Tensor:
        stacked = np.stack([images[name] for name in names])
        return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous().to(device)

    highs = put(high, names)
    clean = [put(images, list(images)) for images in _well_lit(pack / "clean")]
    pictures = Pictures(
        put(low, names),
        highs,
        (*clean, highs),
        put(native, natives) if natives else None,
        put(high, natives) if natives else None,
    )
    checks = {}
    for kind, dark in (("held out", low), ("native", native)):
        if apart := sorted(held_out & dark.keys()):
            checks[kind] = put(dark, apart), put(high, apart)
    if dark := _read(pack / "check/low"):
        checks["check"] = put(dark, sorted(dark)), put(_read(pack / "check/high"), sorted(dark))
    return Pack(pictures, checks)


def _well_lit(folder: Path) -> list[Images]:
    """Pictures of one size each time, all of them lying."""
    sizes: dict[tuple[int, ...], Images] = {}
    for below in sorted(folder.iterdir()) if folder.exists() else ():
        for name, image in _read(below).items():
            lying = np.rot90(image) if image.shape[0] > image.shape[1] else image
            sizes.setdefault(lying.shape, {})[f"{below.name}/{name}"] = lying
    return list(sizes.values())


def _read(folder: Path) -> Images:
    """The images of a folder, if it is there, cut to what the network takes."""

    def read(path: Path) -> Rgb:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert image is not None, path
        height, width = (side // MULTIPLE * MULTIPLE for side in image.shape[:2])
        return np.ascontiguousarray(image[:height, :width, ::-1])

    paths = sorted(folder.iterdir()) if folder.exists() else []
    with ThreadPoolExecutor() as pool:
        return dict(zip((path.stem for path in paths), pool.map(read, paths), strict=True))


def _described(pack: Pack) -> str:
    pictures = pack.pictures
    natives = 0 if pictures.native_low is None else len(pictures.native_low)
    checks = ", ".join(f"{len(low)} {name}" for name, (low, _) in pack.checks.items())
    return (
        f"{len(pictures.low)} pairs, {natives} native, "
        f"{sum(map(len, pictures.clean))} well-lit; to score: {checks}"
    )


if __name__ == "__main__":
    app()
