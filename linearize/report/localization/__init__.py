"""The report of eigenfunction localization: energies, spectra, and their relation to ξ."""

from linearize.report.localization.page import read as read
