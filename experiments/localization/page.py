"""The page of ``experiments.localization``."""

from experiments.localization import plots, tables
from experiments.localization.results import Results
from linearize.report.page import Page, Section, shows

SOURCES = """After Ortiz-Jimenez et al., <cite>Task Arithmetic in the Tangent Space</cite> (NeurIPS
2023, arXiv 2305.12827), section 5; the interval over tasks after Snijders and Borgatti,
<cite>Non-Parametric Standard Errors and Tests for Network Statistics</cite> (Connections 22(2),
1999)."""

DECIDED = (
    "Decided by the numbers of this run alone: held, or not, where the 95 % interval, over "
    "seeds or over tasks as it says, lies on one side of zero."
)


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    kind = "the sum over the logits" if results.output == "trace" else "all logits"
    lead = (
        f"The empirical neural tangent kernel of {results.model_name} at θ0 ({kind} of the "
        f"target's frozen head) on {results.points} test inputs of each of "
        f"{len(results.pretrained)} tasks: where the eigenfunctions that carry a task's target "
        "live, its own inputs or those of another, control task, beside the disentanglement error "
        "ξ of the two tasks' vectors."
    )
    spectra = [
        draw(results, i)
        for i in range(len(results.pairs))
        for draw in (plots.spectrum, plots.histogram)
    ]
    return Page(
        title=f"Eigenfunction localization: {results.preset}",
        lead=lead,
        facts=results.facts(results.pretrained),
        sections=(
            results.verdicts("Claims of the paper", DECIDED),
            Section(
                "energy", "Where targets live", (plots.matrix(results), tables.energies(results))
            ),
            Section(
                "relation",
                "Localization and ξ",
                (plots.scatter(results), tables.relations(results), tables.pairs(results)),
            ),
            Section("spectra", "Pairs of tasks", tuple(spectra)),
            results.configuration,
        ),
        headlines=("claims", "energies", "relation"),
        sources=SOURCES,
    )
