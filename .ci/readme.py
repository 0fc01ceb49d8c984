"""Runs the commands of README and of the site's pages for those who begin.

Word for word, but for what one small machine lacks:

    python .ci/readme.py SCRATCH

Every line of a bash block is run, once, and the python blocks last: in the order of the
pages, but two at a time where they name no file in common. The rules:

1. /tmp/ is the folder SCRATCH; RUN is the first run in it, DATA a folder for data
   sets, IMAGES a folder of pictures made here.
2. Training on digits stops after two steps (the first run after twenty), a sweep after
   its first seed; a benchmark times two steps.
3. Training of a recipe at full size is asked for its settings alone: `--show_config`.
4. A command on what cannot be shipped (official archives, robustness sets, COCO,
   weights, the TPU's compiler) must end with one message that names what is missing.
5. Scripts for slices and SLURM are checked for syntax; tests run them. pip and pytest:
   `.ci/run` itself.
6. XLA optimises little: runs this short spend their time compiling.
"""

import concurrent.futures
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
    ROOT / name
    for name in ("README.md", "docs/index.md", "docs/pictures.md", "docs/repeats.md")
]
NOT_HERE = re.compile(r"\.tar\b|IMAGENET_|--shifted=|--coco=|\bWEIGHTS\b|--topology=")
ON_DIGITS = re.compile(r"configs/digits\S*")
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
if importlib.metadata.version("jaxlib").startswith("0.10."):  # see tests/conftest.py
    QUICK["XLA_FLAGS"] = (
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )


def blocks(language: str) -> list[str]:
    """Contents of the pages' code blocks of one language."""
    text = "".join(page.read_text() for page in PAGES)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands() -> list[str]:
    """Every command of the pages, pip and pytest left out."""
    lines = [line for block in blocks("bash") for line in block.splitlines() if line]
    parts = [part for line in lines for part in line.split(" && ")]
    parts = [part for part in parts if part.split()[0] not in ("pip", "pytest")]
    return list(dict.fromkeys(parts))


def shortened(command: str, is_first: bool) -> str:
    """The command with what rules 2, 3 and 5 add to it."""
    if command.startswith("sbatch ") or "launch/tpu.sh" in command:
        return f"bash -n {command.split()[1]}"
    if "ser_jax.benchmark" in command and not re.search("flops_only|topology", command):
        return f"{command} --num_steps=2 --loader_seconds=0.5"
    if not re.search(r"ser_jax\.(main|sweep)|local_processes", command):
        return command
    if not ON_DIGITS.search(command):
        return command if "--show_config" in command else f"{command} --show_config"
    seeds = " --seeds=0" if "ser_jax.sweep" in command else ""
    return f"{command} --config.max_steps={20 if is_first else 2}{seeds}"


def make_pictures(folder: pathlib.Path) -> None:
    """Two classes of twenty pictures each."""
    rng = np.random.default_rng(0)
    for number in range(40):
        path = folder / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(path)


def run(command: str) -> None:
    """Runs a command; ends this program if it does not do what its page says."""
    started = time.monotonic()
    fails = NOT_HERE.search(command)
    done = subprocess.run(
        command,
        shell=True,
        cwd=ROOT,
        env=os.environ | QUICK,
        capture_output=True,
        text=True,
    )
    output = done.stdout + done.stderr
    if bool(done.returncode) != bool(fails) or (fails and "Traceback" in output):
        status = f"exit status {done.returncode}: the page is not true."
        sys.exit(f"$ {command}\n{output}\n{status}")
    lines = [
        line for line in output.splitlines() if "error:" in line or "prepare:" in line
    ]
    last = lines[-1] if fails else "ok"
    seconds = time.monotonic() - started
    print(f"$ {command}\n  {seconds:.0f} s: {last}", flush=True)


def run_all(commands: list[str], scratch: pathlib.Path) -> None:
    """Runs commands two at a time, each after those before it that share a file."""

    def files(command: str) -> set[str]:
        return set(re.findall(rf"{scratch}/[\w.]+", command))

    waiting, running = list(commands), {}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        while waiting or running:
            before = set().union(*(files(command) for command in running.values()))
            for command in waiting if len(running) < 2 else ():
                if not before & files(command):
                    waiting.remove(command)
                    running[pool.submit(run, command)] = command
                    break
                before |= files(command)
            else:
                ended, _ = concurrent.futures.wait(
                    running, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in ended:
                    del running[future]
                    future.result()


def main(scratch: pathlib.Path) -> None:
    """Runs them all."""
    make_pictures(scratch / "images")
    places = {
        "/tmp/": f"{scratch}/",
        r"\bRUN\b": f"{scratch}/digits_ser",
        r"\bDATA\b": f"{scratch}/data",
        r"\bIMAGES\b": f"{scratch}/images",
    }
    chosen = [shortened(c, is_first=i == 0) for i, c in enumerate(commands())]
    for name, place in places.items():
        chosen = [re.sub(name, place, command) for command in chosen]
    run_all(chosen, scratch)
    images = "import numpy as np\nimages = np.zeros((3, 24, 24, 3), np.uint8)\n"
    program = images + "".join(blocks("python"))
    (scratch / "from_python.py").write_text(program.replace("/tmp/", f"{scratch}/"))
    run(f"python {scratch}/from_python.py")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).absolute())
