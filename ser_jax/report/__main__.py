"""Command line: `python -m ser_jax.report WORKDIR [WORKDIR ...] [--html=PATH]`.

One HTML page on trained and evaluated runs: what they are, how they trained, what they
reached, side by side. It holds its pictures and opens offline. With `--markdown=DIR`
also, for two runs or more, the same comparison as text, JSON and one picture. With
`--reference` it says of each run whether its curves are normal: within the spread of
reference runs of its recipe, which the repository keeps.
"""

import functools

from absl import app, flags

from ser_jax.config import flags as command_line
from ser_jax.report.write import REFERENCE_FILE, report
from ser_jax.storage.files import as_path

_HTML = flags.DEFINE_string(
    "html",
    None,
    "The page; if not given, report.html in the workdir of a single run, beside the "
    "comparison, or here.",
)
_MARKDOWN = flags.DEFINE_string(
    "markdown", None, "Folder for comparison.md, comparison.json, comparison.png."
)
_REFERENCE = flags.DEFINE_bool(
    "reference", False, "Hold each run against the reference runs of its recipe."
)


def main(argv: list[str]) -> None:
    """Reports on the runs that the command line names."""
    command_line.log_own_messages()
    written = functools.partial(report, reference=_REFERENCE.value)
    page = command_line.run_or_fail(written, argv[1:], _HTML.value, _MARKDOWN.value)
    if _MARKDOWN.value is not None:
        folder = as_path(_MARKDOWN.value)
        print((folder / "comparison.md").read_text(encoding="utf-8"))
        print(f"Written to {folder}.")
    if _REFERENCE.value:
        print((page.parent / REFERENCE_FILE).read_text(encoding="utf-8"))
    print(f"Written to {page}.")


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse_flags_and_runs)
