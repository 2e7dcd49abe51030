"""The kernel laboratory: the empirical neural tangent kernel of any model, and what it predicts.

kernel               K(x, x') = J(x) J(x')ᵀ, exactly; vector_product its product with vectors,
                     approximate_kernel cheaper and with its error; kernel_cost what it takes
regression, ...      what linearized fine-tuning ends in, on the kernel; to_task_vector its weights
fine_tune_exactly    the optimum of linear fine-tuning as a task vector, by the dual or in weights
moments, ...         trace, Frobenius norm, effective rank and alignment from products, with errors
eigenpairs, ...      spectra; local_energy and localization of eigenfunctions
drift, ...           how far fine-tuning leaves the kernel regime
"""

from linearize.ntk import archive as archive
from linearize.ntk.approximate import Approximation as Approximation
from linearize.ntk.approximate import approximate_kernel as approximate_kernel
from linearize.ntk.behavior import alignment as alignment
from linearize.ntk.behavior import drift as drift
from linearize.ntk.behavior import fixed_features as fixed_features
from linearize.ntk.behavior import linearization_gap as linearization_gap
from linearize.ntk.behavior import movement as movement
from linearize.ntk.behavior import target_alignment as target_alignment
from linearize.ntk.checks import NotConvergedError as NotConvergedError
from linearize.ntk.costs import KernelCost as KernelCost
from linearize.ntk.costs import kernel_cost as kernel_cost
from linearize.ntk.dual import cross_entropy as cross_entropy
from linearize.ntk.dual import cross_entropy_descent as cross_entropy_descent
from linearize.ntk.exact import fine_tune_exactly as fine_tune_exactly
from linearize.ntk.features import feature_change as feature_change
from linearize.ntk.gauss_newton import Optimum as Optimum
from linearize.ntk.gauss_newton import gauss_newton as gauss_newton
from linearize.ntk.hutch import Moments as Moments
from linearize.ntk.hutch import alignment_estimate as alignment_estimate
from linearize.ntk.hutch import moments as moments
from linearize.ntk.hutch import rank_estimate as rank_estimate
from linearize.ntk.infinite_width import mlp_kernel as mlp_kernel
from linearize.ntk.kernel import kernel as kernel
from linearize.ntk.localization import eigenfunctions as eigenfunctions
from linearize.ntk.localization import extend as extend
from linearize.ntk.localization import local_energy as local_energy
from linearize.ntk.localization import localization as localization
from linearize.ntk.localization import target_coefficients as target_coefficients
from linearize.ntk.matrix_free import conjugate_gradient as conjugate_gradient
from linearize.ntk.matrix_free import lanczos as lanczos
from linearize.ntk.nystrom import nystrom as nystrom
from linearize.ntk.nystrom import randomized_nystrom as randomized_nystrom
from linearize.ntk.objective import Reached as Reached
from linearize.ntk.objective import linear_objective as linear_objective
from linearize.ntk.products import vector_product as vector_product
from linearize.ntk.provenance import TraceKernelWarning as TraceKernelWarning
from linearize.ntk.published import read_published as read_published
from linearize.ntk.regression import Dual as Dual
from linearize.ntk.regression import gradient_descent as gradient_descent
from linearize.ntk.regression import gradient_flow as gradient_flow
from linearize.ntk.regression import max_learning_rate as max_learning_rate
from linearize.ntk.regression import predict as predict
from linearize.ntk.regression import regression as regression
from linearize.ntk.solvers import fit as fit
from linearize.ntk.spectrum import effective_rank as effective_rank
from linearize.ntk.spectrum import eigenpairs as eigenpairs
from linearize.ntk.spectrum import participation_ratio as participation_ratio
from linearize.ntk.stochastic import log_determinant as log_determinant
from linearize.ntk.stochastic import trace as trace
from linearize.ntk.store import UnfinishedKernelError as UnfinishedKernelError
from linearize.ntk.store import count_blocks as count_blocks
from linearize.ntk.store import open_kernel as open_kernel
from linearize.ntk.weights import to_task_vector as to_task_vector
