"""The page of ``experiments.kernel_behavior``: the kernel along a fine-tuning."""

from pathlib import Path

from experiments.kernel_behavior import few_shot_page, few_shot_results, plots, tables
from experiments.kernel_behavior.results import Results
from linearize.report import schema
from linearize.report.node import Node
from linearize.report.page import Page, Section

SOURCES = """After Malladi et al., <cite>A Kernel-Based View of Language Model Fine-Tuning</cite>
(ICML 2023), and Ortiz-Jimenez et al., <cite>Task Arithmetic in the Tangent Space</cite> (NeurIPS
2023, arXiv 2305.12827)."""


def read(node: Node, run_dir: Path) -> Page:
    """The page of a run directory's results.

    Raises:
        ResultsError: a key is missing or does not fit.
    """
    if node.has("few_shot"):
        return few_shot_page.page(schema.read(few_shot_results.Results, node))
    results = schema.read(Results, node)
    gap = (plots.gap(results), plots.accuracy(results))
    return Page(
        title=f"Kernel behaviour along fine-tuning: {results.preset}",
        lead="A model is fine-tuned by SGD and by Adam, and its neural tangent kernel is measured "
        "along the way. Does it stay what it was at θ0? Does it predict what fine-tuning finds?",
        facts=results.facts(results.tasks),
        sections=(
            Section(
                "kernel",
                "The kernel along fine-tuning",
                (plots.along(results), tables.final(results)),
            ),
            Section("gap", "The linearization gap", gap),
            Section("solutions", "What the kernels predict", (tables.solutions(results),)),
            Section("movement", "Where the weights move", (plots.movement(results),)),
            Section("spectrum", "Spectra", (plots.spectrum(results),)),
            results.verdicts("Claims"),
            results.configuration,
        ),
        headlines=("final", "solutions", "claims"),
        sources=SOURCES,
    )
