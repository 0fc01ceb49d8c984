"""Damages every file of the newest checkpoint, then resumes or evaluates.

    python damage.py resume|evaluate DAMAGE,DAMAGE

Prints a line a trial: file, damage, verdict, message. From the project's root.
"""

import collections
import contextlib
import io
import logging
import pathlib
import random
import shutil
import sys
import tempfile

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import flags

from ser_jax.evaluate.open import open_run
from ser_jax.evaluate.results import evaluate
from ser_jax.sweep.grid import load_config
from ser_jax.train import loop

SMALL = {
    "batch_size": 16,
    "model.depth": 1,
    "model.width": 32,
    "model.num_heads": 2,
    "augment.image_size": 16,
    "loader.num_threads": 1,
    "max_steps": 8,
    "checkpoint.every_steps": 4,
    "log_every_steps": 2,
    "knn.every_epochs": 0.0,
}
logs = io.StringIO()


def quietly(function, *arguments):
    """Result, kind of ending, message, what was logged."""
    logs.seek(0), logs.truncate()
    silence = contextlib.redirect_stdout(io.StringIO())
    with silence, contextlib.redirect_stderr(io.StringIO()):
        try:
            return function(*arguments), "ok", "", logs.getvalue()
        except (ValueError, OSError, FloatingPointError) as error:
            return None, "refused", f"{type(error).__name__}: {error}", logs.getvalue()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
            return None, "TRACEBACK", said, logs.getvalue()


def final_arrays(workdir, step=8):
    handler = ocp.PyTreeCheckpointHandler()
    state = handler.restore(workdir / "checkpoints" / str(step) / "state")
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def evaluated(workdir):
    run = open_run(str(workdir))
    results = evaluate(run, ["knn"], folder=workdir / "results")
    variables = jax.tree.leaves(run.encoder.variables)
    return (
        run.step,
        results["tasks"]["knn"],
        [np.asarray(x).tobytes() for x in variables],
    )


def spoil(path, damage, seed):
    data, rng = bytearray(path.read_bytes()), random.Random(seed)
    if damage == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip" and data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    elif damage == "delete":
        path.unlink()
    elif damage == "zero":
        path.write_bytes(bytes(len(data)))


def verdict_on_resuming(config, workdir, expected):
    _, kind, message, log = quietly(loop.train, config, str(workdir))
    if kind != "ok":
        return kind, message
    used = "older step used" if "is damaged" in log else "silent"
    same = final_arrays(workdir) == expected
    return f"{used}, {'values right' if same else 'END DIFFERS'}", message


def verdict_on_evaluating(workdir, expected):
    found, kind, message, _ = quietly(evaluated, workdir)
    if kind != "ok":
        return kind, message
    if found[0] != expected[0]:
        return f"older step {found[0]} used SILENTLY", message
    return "silent, values right" if found == expected else "silent WRONG", message


def main(where, damages):
    flags.FLAGS(["damage"])
    logger = logging.getLogger("ser_jax")
    logger.addHandler(logging.StreamHandler(logs))
    logger.setLevel("INFO")
    logger.propagate = False
    root = pathlib.Path(tempfile.mkdtemp())
    settings = SMALL | {"dataset.data_dir": root / "data"}
    config = load_config(
        [
            "--config=configs/digits.py",
            *(f"--config.{k}={v}" for k, v in settings.items()),
        ]
    )
    sound, spoilt = root / "sound", root / "spoilt"
    loop.train(config, str(sound))
    arrays, scores = final_arrays(sound), evaluated(sound)
    shutil.rmtree(sound / "results")
    newest = sound / "checkpoints" / "8"
    files = sorted(p.relative_to(sound) for p in newest.rglob("*") if p.is_file())
    verdicts = collections.Counter()
    for number, name in enumerate(files):
        for damage in damages:
            shutil.copytree(sound, spoilt)
            spoil(spoilt / name, damage, f"{number}{damage}")
            if where == "resume":
                verdict, message = verdict_on_resuming(config, spoilt, arrays)
            else:
                verdict, message = verdict_on_evaluating(spoilt, scores)
            print(name, damage, verdict, message[:80], sep=", ", flush=True)
            verdicts[verdict] += 1
            shutil.rmtree(spoilt)
    shutil.rmtree(root)
    print(dict(verdicts))
    bad = ("TRACEBACK", "WRONG", "DIFFERS", "SILENTLY")
    sys.exit(any(word in verdict for verdict in verdicts for word in bad))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","))
