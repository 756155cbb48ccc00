"""Train ABSGN for a given time on the pictures of a pack, all of which are kept on the GPU.

    python -m benchmarks.gpu.train PACK OUT --seconds 480 [--start FILE]

OUT gets, well before the end and again whenever the network is scored,

    absgn.safetensors    the weights in half precision, 16.4 MB
    log.jsonl            a line each time: seconds, steps, loss, scores
    looked_at.webp       held-out pictures: dark, enhanced, ground truth

Scores are PSNR and SSIM of 8-bit results as a job writes them, and PSNR once the mean is that of
the truth: for the scenes held out, for the pairs held out of scenes that are trained on, for the
native dark pictures of both (shrunk like the truth for comparison), and for ``check``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

from batchlight.absgn.conversion import each, given_for
from batchlight.absgn.losses import resized, ssim
from batchlight.absgn.network import ABSGN
from batchlight.absgn.recipe import Extent, Phase, Recipe, phases_of
from batchlight.absgn.samples import (
    LARGEST_NATIVE,
    LARGEST_PICTURE,
    Pair,
    Pictures,
    as_picture,
    fitted,
)
from batchlight.absgn.start import ClassicalStart, Start, to_metadata
from batchlight.absgn.synthetic import Darkening
from batchlight.absgn.training import Stop, Trainer
from batchlight.absgn.weights import dump_weights, parse_weights
from benchmarks.gpu import CONTENTS, HELD_OUT, KNOWN_SCENES

Rgb = npt.NDArray[np.uint8]
Images = dict[str, Rgb]
"""By name: (height, width, 3)."""

SIDE = 256
REHEARSAL = (
    Phase(0.6, side=96, batch=6),
    Phase(0.9, side=160, batch=2),
    Phase(1.0, side=256, batch=2, native=0.2),
)
"""Phases for a rehearsal on a CPU."""
LOOKED_AT = 8
"""Pictures of each kind."""
LOOKED_AT_WIDTH = 360


@dataclass(frozen=True)
class Pack:
    """The contents of a pack."""

    pictures: Pictures
    checks: dict[str, list[Pair]]
    """By name: dark pictures, and their ground truth, perhaps shrunk."""


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
    batch: Annotated[int, typer.Option(help="Samples of that side, or of 256, in a step.")] = 8,
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
    begun = parse_weights(start.read_bytes()) if start else None
    phases = phases_of(SIDE, batch) if device.type == "cuda" else REHEARSAL
    recipe = Recipe(
        channels,
        learning_rate=rate,
        average=average,
        synthetic=synthetic,
        phases=phases if side is None else (Phase(1.0, side, batch),),
        seed=seed,
        start=begun.start if begun else ClassicalStart(),
        darkening=replace(Darkening(), bright=bright),
    )
    extent = Extent(seconds=seconds, round_s=score_every)
    about = _about(recipe, extent, start)
    typer.echo(f"{time.monotonic() - began:.1f} s to load; {_described(loaded)}; {device}")
    trainer = Trainer(recipe, loaded.pictures, begun.tensors if begun else None)
    lines: list[str] = []
    for stop in trainer.train(extent):
        scores = _scores(trainer.averaged, recipe.start, loaded)
        data = dump_weights(trainer.weights, {**about, "scores": json.dumps(scores)})
        (out / "absgn.safetensors").write_bytes(data)
        lines.append(json.dumps(_facts(trainer, stop) | scores))
        (out / "log.jsonl").write_text("\n".join(lines) + "\n")
        typer.echo(lines[-1])
    montage = _montage(trainer.averaged, recipe.start, loaded.checks)
    cv2.imwrite(str(out / "looked_at.webp"), montage)
    typer.echo(f"{time.monotonic() - began:.1f} s in all")


def _about(recipe: Recipe, extent: Extent, start: Path | None) -> dict[str, str]:
    """The metadata of the weights."""
    return {
        "model": f"absgn of {recipe.channels} channels",
        "recipe": json.dumps(asdict(recipe) | {"extent": asdict(extent)}, sort_keys=True),
        "started from": start.name if start else "random weights",
        **to_metadata(recipe.start),
    }


def _facts(trainer: Trainer, stop: Stop) -> dict[str, float]:
    rate = trainer.recipe.rate_at(stop.progress)
    facts = {"elapsed_s": trainer.elapsed, "step": trainer.steps, "rate": rate, "loss": stop.loss}
    return {name: round(value, 5) for name, value in facts.items()}


def _scores(network: ABSGN, start: Start | None, pack: Pack) -> dict[str, dict[str, float]]:
    return {name: _score(network, start, pairs) for name, pairs in pack.checks.items()}


@torch.inference_mode()
def _results(
    network: ABSGN, start: Start | None, pairs: Sequence[Pair]
) -> Iterator[tuple[Tensor, Tensor]]:
    """8-bit results, (1, 3, H, W) in 0..1, shrunk like their ground truth, and the truth."""
    for low, high in pairs:
        dark, truth = low[None].float() / 255, high[None].float() / 255
        given = given_for(dark, start)
        x = given.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.float16, enabled=x.device.type == "cuda"):
            restored = network(x)
        restored = (restored.float() * 255).round() / 255
        if isinstance(start, ClassicalStart):
            restored = each(start.after, restored, given, dark)
        yield _shrunk(restored, (truth.shape[2], truth.shape[3])), truth


def _score(network: ABSGN, start: Start | None, pairs: Sequence[Pair]) -> dict[str, float]:
    rows = []
    for restored, truth in _results(network, start, pairs):
        aligned = (restored * (truth.mean() / restored.mean().clamp(min=1e-3))).clamp(0, 1)
        errors = torch.stack([((x - truth) ** 2).mean() for x in (restored, aligned)])
        rows.append(torch.cat([-10 * errors.log10(), ssim(restored, truth)[None]]))
    psnr, aligned_psnr, likeness = torch.stack(rows).mean(0).tolist()
    return {"psnr": round(psnr, 3), "ssim": round(likeness, 4), "aligned": round(aligned_psnr, 3)}


def _montage(network: ABSGN, start: Start | None, checks: Mapping[str, Sequence[Pair]]) -> Rgb:
    columns = []
    for pairs in checks.values():
        pairs = pairs[:: max(1, len(pairs) // LOOKED_AT)][:LOOKED_AT]
        for (dark, _), (restored, truth) in zip(
            pairs, _results(network, start, pairs), strict=True
        ):
            shown = [dark[None].float() / 255, restored, truth]
            size = (LOOKED_AT_WIDTH * 2 // 3, LOOKED_AT_WIDTH)
            column = torch.cat([_shrunk(x, size)[0] for x in shown], 1)
            columns.append((column.clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy())
    columns += [np.zeros_like(columns[0])] * (-len(columns) % LOOKED_AT)
    rows = [np.hstack(columns[at : at + LOOKED_AT]) for at in range(0, len(columns), LOOKED_AT)]
    return np.ascontiguousarray(np.vstack(rows)[..., ::-1])


def _shrunk(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resized, in 256 levels."""
    return (resized(images, size) * 255).round() / 255


def _refuse_incomplete(pack: Path) -> None:
    """Exit if files of a pack were lost on the way: GPU minutes are expensive, and unattended."""
    for folder, count in json.loads((pack / CONTENTS).read_text()).items():
        there = sum(1 for _ in (pack / folder).iterdir()) if (pack / folder).is_dir() else 0
        if there != count:
            raise SystemExit(f"{pack / folder} holds {there} of {count} files; copy the pack again")


def _load(pack: Path, device: torch.device) -> Pack:
    _refuse_incomplete(pack)
    low, high = _read(pack / "pairs/low"), _read(pack / "pairs/high")
    native = _read(pack / "native/low", LARGEST_NATIVE)
    square = next(iter(high.values())).shape[:2]
    for name, image in native.items():
        if name not in low:  # the same picture, shrunk
            floats = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
            low[name] = (_shrunk(floats, square)[0] * 255).byte().permute(1, 2, 0).numpy()
    scenes, alone = (set((pack / file).read_text().split()) for file in (HELD_OUT, KNOWN_SCENES))
    held_out = scenes | alone

    def put(dark: Images, truth: Images, names: Iterable[str]) -> list[Pair]:
        both = ((dark[name], truth[name]) for name in sorted(names))
        return [(as_picture(one, device), as_picture(other, device)) for one, other in both]

    pairs = put(low, high, low.keys() - held_out)
    clean = [
        as_picture(image, device)
        for folder in (sorted((pack / "clean").iterdir()) if (pack / "clean").exists() else ())
        for image in _read(folder).values()
    ]
    pictures = Pictures(
        pairs, [*clean, *(truth for _, truth in pairs)], put(native, high, native.keys() - held_out)
    )
    dark, truth = (
        _read(pack / "check/low", LARGEST_NATIVE),
        _read(pack / "check/high", LARGEST_NATIVE),
    )
    checks = {
        "held out": put(low, high, scenes & low.keys()),
        "known scenes": put(low, high, alone & low.keys()),
        "native": put(native, high, held_out & native.keys()),
        "check": put(dark, truth, dark.keys()),
    }
    return Pack(pictures, {name: pairs for name, pairs in checks.items() if pairs})


def _read(folder: Path, samples: int = LARGEST_PICTURE) -> Images:
    """The images of a folder, if it exists, as kept in memory."""

    def read(path: Path) -> Rgb:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert image is not None, path
        return fitted(np.ascontiguousarray(image[..., ::-1], np.uint8), SIDE, samples)

    paths = sorted(folder.iterdir()) if folder.exists() else []
    with ThreadPoolExecutor() as pool:
        return dict(zip((path.stem for path in paths), pool.map(read, paths), strict=True))


def _described(pack: Pack) -> str:
    pictures = pack.pictures
    checks = ", ".join(f"{len(pairs)} {name}" for name, pairs in pack.checks.items())
    return (
        f"{len(pictures.pairs)} pairs, {len(pictures.native)} native, "
        f"{len(pictures.clean)} well-lit; to score: {checks}"
    )


if __name__ == "__main__":
    app()
